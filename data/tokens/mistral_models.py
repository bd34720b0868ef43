"""Which models speak Mistral's v7-tekken form: Mistral Small 3 and 3.1, and their offspring."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.tokens.tekken_check import load_tekken
from data.tokens.training_template import own_template, render_text

CONTROL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
# Later forms have the same control tokens and chats, and other tool calls.
LATER_TOKENS = ("[ARGS]", "[CALL_ID]")
CHAT = ("S", "U 1", "A 1", "U 2", "A 2")
CHAT_ROLES = ("system", "user", "assistant", "user", "assistant")
CHAT_TEXT = "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U 1[/INST]A 1</s>[INST]U 2[/INST]A 2</s>"


def is_mistral_v7(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the control tokens and the model's own chat template are those of v7-tekken.

    Errors: `UserError` where the control tokens are, and there is no chat template.
    """
    ids = list(range(len(CONTROL_TOKENS)))
    if tuple(tokenizer.convert_ids_to_tokens(ids)) != CONTROL_TOKENS:
        return False
    template = own_template(tokenizer)
    if any(token in template for token in LATER_TOKENS):
        return False
    tekken = load_tekken(Path(tokenizer.name_or_path))
    if tekken is not None and tekken.version.value != "v7":
        return False
    if tekken is None and not set(LATER_TOKENS).isdisjoint(tokenizer.get_vocab()):
        return False
    # Mistral Small 3.1's template takes the system turn as a list of parts only.
    contents: tuple[list[Any], ...] = (
        list(CHAT),
        [[{"type": "text", "text": text}] for text in CHAT],
    )
    return any(
        render_text(
            tokenizer,
            [
                {"role": role, "content": content}
                for role, content in zip(CHAT_ROLES, form, strict=True)
            ],
            template=template,
        )
        == CHAT_TEXT
        for form in contents
    )
