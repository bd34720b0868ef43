"""What every renderer gives: the token ids and the loss mask of a conversation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data.conversation import Conversation, ToolCall


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it.

    input_ids and assistant_mask have the same length, in tokens; the mask holds 0 or 1;
    num_dropped_turns counts the turns cut from the end to stay within the length; problem says why
    a row cannot be rendered, and then there are no tokens.
    """

    input_ids: list[int]
    assistant_mask: list[int]
    num_dropped_turns: int
    problem: str = ""

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss is taken over."""
        return sum(self.assistant_mask)


class Renderer(Protocol):
    """Turns conversations into tokens in the one form that its model was trained on."""

    def render(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """One result for each conversation, in order and uncut."""
        ...


class RowProblem(ValueError):
    """Why a row cannot be rendered without losing or inventing something."""


def refused(problem: RowProblem) -> Rendered:
    """The result of a row that cannot be rendered."""
    return Rendered([], [], 0, str(problem))


def check_text(text: str) -> str:
    """`text`, where a tokenizer takes it; else a `RowProblem`."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowProblem("holds half of a surrogate pair, which is no character") from error
    return text


def call_arguments(call: ToolCall) -> dict[str, Any]:
    """The arguments of a tool call; none at all count as an empty object."""
    name, text = call["function"]["name"], call["function"]["arguments"]
    try:
        arguments = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise RowProblem(f"the arguments of the call of {name} are not JSON") from error
    if not isinstance(arguments, dict):
        raise RowProblem(f"the arguments of the call of {name} are not a JSON object")
    return arguments
