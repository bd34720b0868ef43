"""The lines of a recording: what each holds, and the seal that tells a damaged or edited file."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from data.conversation import ToolCall

FORMAT = "tunery-recording"
VERSION = 1


class RecordedTask(TypedDict):
    """A task with one of its prompts; log: the inspect task's name; metric: for people."""

    task: str
    prompt: str
    log: str
    metric: str
    licence: str
    temperature: float
    max_tokens: int
    num_epochs: int
    num_questions: int


class Header(TypedDict):
    """The first line; asked_from and asked_to: ISO 8601; num_answers and sha256: see `seal`."""

    format: str
    version: int
    name: str
    model: str
    host: str
    asked_from: str
    asked_to: str
    versions: dict[str, str]
    price: dict[str, Any] | None
    tasks: list[RecordedTask]
    num_answers: int
    sha256: str


class RecordedAnswer(TypedDict):
    """An answer's line; prompt_text: only where the recording was made with prompts."""

    task: str
    prompt: str
    id: str
    epoch: int
    prompt_sha256: str
    text: str
    tool_calls: list[ToolCall]
    stop_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    prompt_text: NotRequired[str]


def seal(header: Header, lines: Sequence[str]) -> str:
    """SHA-256 of the header with an empty checksum and of all lines after it, each with its end."""
    unsealed = to_json({**header, "sha256": ""})
    text = "".join(f"{line}\n" for line in [unsealed, *lines])
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(value: object) -> str:
    """JSON in one line: readable, but for what cannot be printed or is not UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    # What is left unescaped stands inside a string, so that its escape is the one in a string.
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
