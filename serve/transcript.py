"""What an engine answered and how fast, kept while its events pass by, to be compared later."""

import json
import time
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from serve.engine import Event, FinishReason, TextDelta, ToolCallDelta, Usage


@dataclass(kw_only=True)
class CalledTool:
    """One call of a tool. arguments: JSON text as the model wrote it."""

    name: str = ""
    arguments: str = ""


@dataclass(kw_only=True)
class Answer:
    """One of the answers to a request. reason: None while it has not ended."""

    text: str = ""
    calls: list[CalledTool] = field(default_factory=list)
    reason: FinishReason | None = None


class Transcript:
    """Gathers the events of one request; the clock starts with it.

    `add` is cheap enough to stand in a client's stream; `answers` puts the pieces together.
    first_token_s and total_s: seconds, the latter up to the last event seen.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._events: list[Event] = []
        self.first_token_s: float | None = None
        self.total_s = 0.0
        self.usage: Usage | None = None

    def add(self, event: Event) -> None:
        """Take the next event."""
        self.total_s = time.perf_counter() - self._started
        if isinstance(event, Usage):
            self.usage = event
            return
        if self.first_token_s is None:
            self.first_token_s = self.total_s
        self._events.append(event)

    @property
    def complete(self) -> bool:
        """Whether every answer that began has ended; a host need not count tokens."""
        answers = self.answers()
        return bool(answers) and all(answer.reason is not None for answer in answers)

    def answers(self) -> list[Answer]:
        """All answers so far, in the order of their choices."""
        answers: dict[int, Answer] = {}
        texts: dict[int, list[str]] = {}
        for event in self._events:
            answer = answers.setdefault(event.choice, Answer())  # type: ignore[union-attr]
            if isinstance(event, TextDelta):
                texts.setdefault(event.choice, []).append(event.text)
            elif isinstance(event, ToolCallDelta):
                _add_call(answer.calls, event)
            else:
                answer.reason = event.reason  # type: ignore[union-attr]
        for choice, pieces in texts.items():
            answers[choice].text = "".join(pieces)
        return [answers[choice] for choice in sorted(answers)]


def _add_call(calls: list[CalledTool], event: ToolCallDelta) -> None:
    while len(calls) <= event.call:
        calls.append(CalledTool())
    call = calls[event.call]
    call.name += event.name or ""
    call.arguments += event.arguments


def are_equal(ours: list[Answer], theirs: list[Answer]) -> bool:
    """Whether two models said the same: texts but for white space, calls of tools as JSON.

    Characters are compared in Unicode's composed form; the calls' ids, the order of keys and how
    a number is spelt do not count, the order of the calls does.
    """
    return [_essence(answer) for answer in ours] == [_essence(answer) for answer in theirs]


def _essence(answer: Answer) -> tuple[str, list[tuple[str, str]]]:
    text = " ".join(unicodedata.normalize("NFC", answer.text).split())
    return text, [(call.name, _canonical(call.arguments)) for call in answer.calls]


def _canonical(arguments: str) -> str:
    """The JSON in its one spelling; text that is no JSON stands for itself."""
    try:
        return json.dumps(json.loads(arguments, parse_float=_number), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _number(spelt: str) -> Any:  # noqa: ANN401 (a number, as json takes it)
    value = float(spelt)
    return int(value) if value.is_integer() else value
