"""A pair of answers to one request, and what is kept of it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from data.conversation import Message
from serve.engine import Completion, ContextExceeded, RequestRefused
from serve.transcript import Answer, Transcript, are_equal

ShadowOutcome = Literal[
    "answered", "refused", "overloaded", "unavailable", "failed", "too_slow", "ended"
]


@dataclass(kw_only=True)
class Pair:
    """One request and both answers to it.

    time: when the client's answer ended, in UTC; client: its name; main, shadow: labels of who
    answered; error: why the shadow did not; outcome: `ended` where the server's end came first.
    """

    time: datetime
    route: str
    request_id: str
    client: str
    request: Completion
    main: str
    answered: Transcript
    shadow: str
    shadowed: Transcript | None = None
    outcome: ShadowOutcome = "ended"
    error: Exception | None = None


def render_pair(pair: Pair, *, texts: bool) -> dict[str, Any]:
    """The record of a pair; texts: with messages and answers.

    `equal` is null where the shadow has no whole answer. An error is told by its class and the
    field at fault: its words may quote the request.
    """
    ours = pair.answered.answers()
    theirs = pair.shadowed.answers() if pair.shadowed is not None else []
    record: dict[str, Any] = {
        "time": pair.time.isoformat(timespec="milliseconds"),
        "request_id": pair.request_id,
        "route": pair.route,
        "client": pair.client,
        "temperature": pair.request.temperature,
        "equal": are_equal(ours, theirs) if pair.outcome == "answered" else None,
        "main": _side(pair.main, pair.answered, ours) | {"outcome": "answered", "error": None},
        "shadow": _side(pair.shadow, pair.shadowed, theirs)
        | {"outcome": pair.outcome, "error": _error(pair.error)},
    }
    if texts:
        record["messages"] = [_without_images(message) for message in pair.request.messages]
        record["main"]["answers"] = [_answer_text(answer) for answer in ours]
        record["shadow"]["answers"] = [_answer_text(answer) for answer in theirs]
    return record


def _side(label: str, transcript: Transcript | None, answers: list[Answer]) -> dict[str, Any]:
    usage = transcript.usage if transcript is not None else None
    return {
        "target": label,
        "first_token_ms": _milliseconds(transcript.first_token_s if transcript else None),
        "total_ms": _milliseconds(transcript.total_s if transcript and answers else None),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "finish_reasons": [answer.reason for answer in answers],
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _error(error: Exception | None) -> dict[str, Any] | None:
    if error is None:
        return None
    told: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, RequestRefused):
        told["field"] = error.field
    if isinstance(error, ContextExceeded):
        told["prompt_tokens"] = error.prompt_tokens
        told["context_length"] = error.context_length
    return told


def _answer_text(answer: Answer) -> dict[str, Any]:
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.calls]
    return {"text": answer.text, "tool_calls": calls}


def _without_images(message: Message) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    parts = [
        part
        if part["type"] == "text"
        else {"type": "image_url", "sha256": _sha256(part["image_url"]["url"])}
        for part in content
    ]
    return {**message, "content": parts}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
