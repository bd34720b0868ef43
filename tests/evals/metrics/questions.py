"""Questions and calls for the tests of the metrics."""

import json

from data.conversation import Message, ToolCall
from evals.metrics.score import Reply
from evals.task import Question


def question_of(
    expected: str = "", *, asked: str = "?", calls: tuple[ToolCall, ...] = (), **check: object
) -> Question:
    reference: Message = {"role": "assistant", "content": expected}
    if calls:
        reference["tool_calls"] = list(calls)
    return Question(
        id="q",
        messages=({"role": "user", "content": asked},),
        reference=reference,
        cluster="q",
        check=check,
    )


def call_of(name: str, arguments: object) -> ToolCall:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": text}}


def reply_of(*calls: ToolCall, text: str = "") -> Reply:
    return Reply(text, calls)
