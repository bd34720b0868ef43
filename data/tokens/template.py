"""Conversations to token ids and a loss mask, in the one form that their model speaks.

Template and mask come out of one pass over one row, so they cannot drift apart. The mask is 1 on
what the model shall learn to say: the assistant's words, its tool calls, and the token that ends
its turn.
"""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from data.conversation import Conversation
from data.tokens.chat_template import ChatTemplateRenderer
from data.tokens.mistral_models import is_mistral_v7
from data.tokens.mistral_v7 import MistralV7Renderer
from data.tokens.rendered import Rendered as Rendered
from data.tokens.rendered import Renderer as Renderer


def load_renderer(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    """The renderer of the tokenizer's model.

    Errors: `UserError` where no faithful training form exists: see `load_training_template`,
    `find_answer_frame` and `check_token_ids`.
    """
    if is_mistral_v7(tokenizer):
        return MistralV7Renderer(tokenizer)
    return ChatTemplateRenderer(tokenizer)


def render_conversations(
    conversations: Sequence[Conversation], renderer: Renderer, *, max_length: int
) -> list[Rendered]:
    """Render each conversation to at most `max_length` tokens.

    A conversation that is too long loses whole turns from its end, so that it ends with an
    assistant's turn. `num_supervised` is 0 where none fits: such a row teaches nothing, and the
    caller rejects it, as it does a row with a `problem`.
    """
    return [
        _shorten(row, renderer, max_length) if len(one.input_ids) > max_length else one
        for row, one in zip(conversations, renderer.render(conversations), strict=True)
    ]


def _shorten(row: Conversation, renderer: Renderer, max_length: int) -> Rendered:
    num_turns = len(row.messages)
    ends = [n for n, turn in enumerate(row.messages[:-1], 1) if turn["role"] == "assistant"]
    best = Rendered([], [], num_turns)
    # More turns are more tokens, so the longest part that fits is found by halving.
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        kept = replace(row, messages=row.messages[: ends[middle]])
        (one,) = renderer.render([kept])
        if one.problem or len(one.input_ids) > max_length:
            high = middle
        else:
            best = replace(one, num_dropped_turns=num_turns - ends[middle])
            low = middle + 1
    return best
