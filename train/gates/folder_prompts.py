"""Prompts as a server of a checkpoint folder makes them, out of that folder's own files."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from configs.errors import UserError
from data.conversation import Conversation, Message, text_of
from data.tokens.rendered import call_arguments
from data.tokens.training_template import TEMPLATE_ERRORS


class FolderPrompts:
    """The tokenizer and chat template of a folder, loaded when they are first asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer: Any = None

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation that waits for an answer.

        By `AutoTokenizer`, as servers load it, and not as training does. Errors: `UserError` where
        the folder has no template, or one that does not take the conversation.
        """
        try:
            if self._tokenizer is None:
                self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
            ids = self._tokenizer.apply_chat_template(
                [_as_template_takes_it(message) for message in conversation.messages],
                tools=list(conversation.tools) or None,
                add_generation_prompt=True,
                return_dict=False,
            )
        except (*TEMPLATE_ERRORS, OSError) as error:
            told = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"no prompt can be made: {told}",
                where=self._folder,
                remedy="put the tokenizer and the chat template of the base model there",
            ) from error
        return [int(token) for token in ids]


def _as_template_takes_it(message: Message) -> dict[str, Any]:
    """A turn as servers hand it to a template: texts whole, arguments of calls as objects."""
    plain: dict[str, Any] = {**message, "content": text_of(message)}
    if "tool_calls" in message:
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": call_arguments(call)}}
            for call in message["tool_calls"]
        ]
    return plain
