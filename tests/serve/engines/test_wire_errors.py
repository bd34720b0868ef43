"""The bodies are those that hosts were seen to send."""

import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from serve.engine import (
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestRefused,
)
from serve.engines.wire_errors import find_error, read_error, read_retry_after

CONTEXT_MESSAGES = {
    "Tunery": "the prompt has 9000 tokens, but the model's context holds 8192 tokens, prompt and "
    "answer together",
    "llama.cpp": "request (9000 tokens) exceeds the available context size (8192 tokens), try "
    "increasing it",
    "OpenAI": "This model's maximum context length is 8192 tokens. However, your messages resulted "
    "in 9000 tokens. Please reduce the length of the messages.",
    "OpenAI with an answer": "This model's maximum context length is 8192 tokens. However, you "
    "requested 9100 tokens (9000 in the messages, 100 in the completion). Please reduce the length "
    "of the messages or completion.",
    "vLLM": "This model's maximum context length is 8192 tokens. However, your prompt contains "
    "9000 input tokens, which exceeds this limit even without any output tokens. Please reduce the "
    "length of the input prompt.",
    "vLLM 0.25": "This model's maximum context length is 8192 tokens. However, you requested 64 "
    "output tokens and your prompt contains 9000 input tokens, for a total of 9064 tokens.",
    "vLLM 0.15": "You passed 9000 input tokens and requested 0 output tokens. However, the model's "
    "context length is only 8192 tokens, resulting in a maximum input length of 8192 tokens.",
    "Mistral": "Prompt contains 9000 tokens and 0 draft tokens, too large for model with 8192 "
    "maximum context length",
}


def refusal(body: dict[str, Any], status: int = 400) -> RequestRefused:
    error = find_error(body)
    assert error is not None
    raised = read_error(error, status=status)
    assert isinstance(raised, RequestRefused)
    return raised


@pytest.mark.parametrize("host", CONTEXT_MESSAGES)
def test_counts_of_context_errors(host: str) -> None:
    error = refusal({"error": {"message": CONTEXT_MESSAGES[host], "type": "x", "code": 400}})
    assert isinstance(error, ContextExceeded)
    assert (error.prompt_tokens, error.context_length) == (9000, 8192)


def test_an_answer_that_is_too_long_is_no_fault_of_the_prompt() -> None:
    message = CONTEXT_MESSAGES["OpenAI with an answer"].replace("9000", "20")
    error = refusal({"error": {"message": message}})
    assert not isinstance(error, ContextExceeded)
    assert (str(error), error.field) == (message, "max_tokens")


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "code": "context_length_exceeded", "param": "messages"},
        # vLLM stops counting there.
        {
            "message": "This model's maximum context length is 8192 tokens. However, your prompt "
            "contains at least 8193 input tokens, which exceeds this limit",
            "param": "input_tokens",
            "code": 400,
        },
    ],
)
def test_a_long_prompt_without_its_length(error: dict[str, Any]) -> None:
    raised = refusal({"error": error})
    assert not isinstance(raised, ContextExceeded)
    assert (str(raised), raised.field) == (error["message"], "messages")


FAULT = {"type": "missing", "loc": ["body", "messages", 0, "user", "content"], "msg": "required"}


@pytest.mark.parametrize(
    ("body", "message", "field"),
    [
        ({"error": {"message": "no", "param": "top_p", "code": None}}, "no", "top_p"),
        ({"error": {"type": "invalid_params", "title": "t", "detail": "no"}}, "no", None),
        ({"object": "error", "message": "no", "param": "model", "code": "1500"}, "no", "model"),
        ({"detail": [FAULT]}, "required", "messages[0].content"),
        (
            {"object": "error", "message": {"detail": [FAULT]}, "param": None},
            "required",
            "messages[0].content",
        ),
        (
            {"object": "Error", "detail": [FAULT], "message": [FAULT], "code": 3001},
            "required",
            "messages[0].content",
        ),
        ({"detail": "no"}, "no", None),
        ({"error": "no"}, "no", None),
        ({"message": "no", "request_id": "1"}, "no", None),
    ],
)
def test_refusals_in_all_shapes(body: dict[str, Any], message: str, field: str | None) -> None:
    error = refusal(json.loads(json.dumps(body)), status=422)
    assert (str(error), error.field) == (message, field)


def test_long_messages_are_cut() -> None:
    assert len(str(refusal({"error": {"message": "x" * 10**6}}))) < 1000


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefused),
        (404, RequestRefused),
        (413, RequestRefused),
        (401, EngineError),
        (403, EngineError),
        (429, Overloaded),
        (500, EngineUnavailable),
        (503, EngineUnavailable),
        (302, EngineUnavailable),
    ],
)
def test_what_statuses_amount_to(status: int, kind: type[Exception]) -> None:
    error = find_error({"error": {"message": "no"}})
    assert error is not None
    assert type(read_error(error, status=status)).__mro__.count(kind) == 1
    if status in (401, 403):
        assert not isinstance(read_error(error, status=status), EngineUnavailable)


def test_answers_and_chunks_are_no_errors() -> None:
    assert find_error({"choices": [], "error": None, "message": None}) is None
    assert find_error({"choices": [{"message": {"content": "a"}}], "object": "x"}) is None


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert read_retry_after("7") == 7
    assert read_retry_after("1.5") == 1.5
    in_a_minute = read_retry_after(formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60
    assert read_retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    assert read_retry_after("1e12") == 3600
    assert read_retry_after("soon") is None
    assert read_retry_after(None) is None
