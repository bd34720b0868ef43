"""Small conversations for tests, and what of a rendered one is supervised."""

from itertools import groupby

from transformers import PreTrainedTokenizerBase

from data.conversation import Conversation, Message, ToolCall, ToolDefinition
from data.tokens.rendered import Rendered

LOOK_UP: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up é.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}


def row(*messages: Message, tools: tuple[ToolDefinition, ...] = ()) -> Conversation:
    return Conversation(id="row", messages=messages, tools=tools)


def chat(*contents: str, system: str | None = None) -> Conversation:
    """Contents of user and assistant by turns, after the system turn where one is given."""
    messages: list[Message] = [
        {"role": "assistant" if number % 2 else "user", "content": content}
        for number, content in enumerate(contents)
    ]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return row(*messages)


def call(id: str, arguments: str = '{"key": "a"}', *, name: str = "look_up") -> ToolCall:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def supervised_texts(rendered: Rendered, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The stretches of a row that the loss is taken over."""
    tokens = zip(rendered.input_ids, rendered.assistant_mask, strict=True)
    return [
        str(tokenizer.decode([token for token, _ in run]))
        for supervised, run in groupby(tokens, key=lambda pair: pair[1])
        if supervised
    ]
