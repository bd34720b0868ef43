"""The one function that renders conversations to token ids and a loss mask.

Template and mask come out of one pass over one template, so they cannot drift apart. The mask is
1 on what the model shall learn to say: the assistant's words and the token that ends its turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import BatchEncoding, PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template

from configs.errors import UserError
from data.conversation import Message

TEMPLATES = Path(__file__).parent / "templates"
# Conversations on which a training template must render exactly what the model's own one does.
PROBES: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}),
    (
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q 1"},
        {"role": "assistant", "content": "A\n1"},
        {"role": "user", "content": "Q 2"},
        {"role": "assistant", "content": "A 2"},
    ),
    ({"role": "user", "content": "é < & 'quoted' {{ braces }}"},),
)


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it.

    input_ids and assistant_mask have the same length, in tokens; the mask holds 0 or 1;
    num_dropped_turns counts the turns cut from the end to stay within the length.
    """

    input_ids: list[int]
    assistant_mask: list[int]
    num_dropped_turns: int

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss is taken over."""
        return sum(self.assistant_mask)


def load_training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """A chat template with `{% generation %}` markers that renders what the model's own one does.

    Taken from the model, else from TRL's list, else from data/templates. A model with none of
    them is refused: a guessed mask trains on the wrong tokens without any sign of it.
    """
    own = tokenizer.chat_template
    if not isinstance(own, str):
        raise UserError(
            "the model has no chat template",
            where=tokenizer.name_or_path,
            remedy="choose an instruct model, or add its chat_template.jinja to the folder",
        )
    if "{% generation" in own or "{%- generation" in own:
        return own
    try:
        known = get_training_chat_template(tokenizer)
    except ValueError:
        known = None
    candidates = [known] if known else []
    candidates += [file.read_text() for file in sorted(TEMPLATES.glob("*.jinja"))]
    for candidate in candidates:
        if _renders_alike(tokenizer, own, candidate):
            return candidate
    raise UserError(
        "the model's chat template marks no assistant turns, and no training template matches it",
        where=tokenizer.name_or_path,
        remedy="put {% generation %} … {% endgeneration %} around the assistant's words and its "
        "end token in the model's chat_template.jinja",
    )


def render_conversations(
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str,
    max_length: int,
) -> list[Rendered]:
    """Render each conversation to at most `max_length` tokens.

    A conversation that is too long loses whole turns from its end. `num_supervised` is 0 where no
    assistant turn is left: such a row teaches nothing, and the caller rejects it.
    """
    rendered = _render(conversations, tokenizer, template)
    return [
        _shorten(turns, tokenizer, template, max_length) if len(one.input_ids) > max_length else one
        for turns, one in zip(conversations, rendered, strict=True)
    ]


def _shorten(
    turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase, template: str, max_length: int
) -> Rendered:
    for num_kept in range(len(turns) - 1, 0, -1):
        if turns[num_kept - 1]["role"] != "assistant":
            continue
        (one,) = _render([turns[:num_kept]], tokenizer, template)
        if len(one.input_ids) <= max_length:
            return Rendered(one.input_ids, one.assistant_mask, len(turns) - num_kept)
    return Rendered([], [], len(turns))


def _render(
    conversations: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerBase, template: str
) -> list[Rendered]:
    if not conversations:
        return []
    encoded = tokenizer.apply_chat_template(
        [[dict(turn) for turn in turns] for turns in conversations],  # type: ignore[arg-type]
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert isinstance(encoded, BatchEncoding)
    masks = encoded["assistant_masks"]
    return [Rendered(ids, mask, 0) for ids, mask in zip(encoded["input_ids"], masks, strict=True)]


def _renders_alike(tokenizer: PreTrainedTokenizerBase, own: str, candidate: str) -> bool:
    for probe in PROBES:
        for add_generation_prompt in (False, True):
            texts = [
                tokenizer.apply_chat_template(
                    [dict(turn) for turn in probe],  # type: ignore[arg-type]
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
                for template in (own, candidate)
            ]
            if texts[0] != texts[1]:
                return False
    return True
