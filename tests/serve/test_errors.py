"""Every error as a client gets it, in the hosted interface's shape and in Mistral's."""

import json
import logging

import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, HTTPValidationErrorData
from mistralai.client.models import UserMessage

from serve.engine import (
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestRefused,
)
from serve.errors import (
    ApiError,
    body_too_large,
    field_name,
    from_engine,
    model_not_found,
    not_json,
    nothing_there,
    rate_limited,
    unauthenticated,
    unavailable,
)
from tests.serve.request.bodies import body, parse
from tests.serve.wire import open_wire

ALL = [
    (unauthenticated("no API key given"), 401, "unauthenticated"),
    (model_not_found("nobody/none"), 404, "resource_not_found"),
    (nothing_there("/v1/nothing"), 404, "resource_not_found"),
    (body_too_large(32 * 2**20), 413, "invalid_params"),
    (not_json("text/plain"), 415, "invalid_params"),
    (rate_limited("too many requests", retry_after_s=0.2), 429, "rate_limit_exceeded"),
    (unavailable("the model is loading", retry_after_s=5), 503, "service_unavailable"),
]


@pytest.mark.parametrize(("error", "status", "type"), ALL)
def test_each_error_in_the_hosted_shape(error: ApiError, status: int, type: str) -> None:
    assert error.status == error.mistral_status == status
    told = error.body()
    assert told["status"] == "error"
    assert told["status_message"] == told["error"]["type"] == type
    assert told["error"]["detail"] == told["error"]["message"] == str(error)
    assert told["error"]["title"]


@pytest.mark.parametrize(("error", "status", "type"), ALL)
def test_each_error_in_mistrals_shape(error: ApiError, status: int, type: str) -> None:
    told = error.mistral_body()
    assert list(told) == ["object", "message", "type", "param", "code"]
    assert (told["object"], told["message"]) == ("error", str(error))


def test_words_and_codes_that_clients_look_for() -> None:
    missing = model_not_found("nobody/none")
    assert str(missing) == "Model not found: nobody/none"
    assert (missing.param, missing.code) == ("model", "model_not_found")
    assert missing.mistral_body() == {
        "object": "error",
        "message": "Model not found: nobody/none",
        "type": "invalid_request_error",
        "param": "model",
        "code": "unknown_model",
    }
    assert unauthenticated("no").code == "invalid_api_key"
    assert str(body_too_large(2**20)) == "the body is larger than 1 MiB"
    assert str(not_json("text/plain")).endswith("`Content-Type: application/json`, not text/plain")
    assert str(not_json(None)).endswith("`Content-Type: application/json`")


def test_what_a_client_sent_is_repeated_only_in_part() -> None:
    for error in (model_not_found("a" * 10_000), nothing_there("a" * 10_000), not_json("a" * 9000)):
        assert len(json.dumps(error.body())) < 2000


@pytest.mark.parametrize(("seconds", "header"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2")])
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    for error in (
        rate_limited("wait", retry_after_s=seconds),
        unavailable("wait", retry_after_s=seconds),
    ):
        assert error.headers() == {"Retry-After": header}


def test_headers_of_the_other_errors() -> None:
    assert unauthenticated("no").headers() == {"WWW-Authenticate": "Bearer"}
    assert model_not_found("a").headers() == {}


@pytest.mark.parametrize(
    ("error", "status", "message", "param", "code", "retry"),
    [
        (RequestRefused("no", field="tools"), 400, "no", "tools", None, None),
        (RequestRefused("no"), 400, "no", None, None, None),
        (Overloaded("full", retry_after_s=2), 429, "full", None, "rate_limit_exceeded", 2),
        (EngineUnavailable("gone", retry_after_s=3), 503, "gone", None, None, 3),
        (EngineError("memory"), 500, "the engine failed: memory", None, None, None),
        (KeyError("secret"), 500, "the server failed to answer", None, None, None),
    ],
)
def test_what_an_engine_raises(
    error: Exception,
    status: int,
    message: str,
    param: str | None,
    code: str | None,
    retry: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = from_engine(error)
    assert (answer.status, answer.message, answer.param) == (status, message, param)
    assert (answer.code, answer.retry_after_s) == (code, retry)
    assert bool(caplog.records) == (status == 500)


def test_a_prompt_beyond_the_context_is_no_fault_of_a_field_to_mistral() -> None:
    answer = from_engine(ContextExceeded(prompt_tokens=9010, context_length=8192))
    assert (answer.status, answer.param, answer.code) == (
        400,
        "messages",
        "context_length_exceeded",
    )
    assert "9010 tokens" in answer.message
    assert "8192 tokens" in answer.message
    assert answer.mistral_status == 400
    assert answer.mistral_body()["object"] == "error"


def test_an_answer_that_is_an_error_already_stays() -> None:
    error = unauthenticated("no")
    assert from_engine(error) is error


def test_faults_of_fields_are_a_422_to_mistrals_clients() -> None:
    with pytest.raises(ApiError) as caught:
        parse(body(temperature=3, messages=[{"role": "user"}]))
    error = caught.value
    assert (error.status, error.mistral_status) == (400, 422)
    told = error.mistral_body()
    assert [fault["loc"] for fault in told["detail"]] == [
        ["body", "messages", 0, "content"],
        ["body", "temperature"],
    ]
    parsed = HTTPValidationErrorData.model_validate(told).detail
    assert parsed is not None
    assert parsed[0].msg == "messages[0].content: Field required"
    assert parsed[1].type == "less_than_equal"


def test_an_engines_refusal_of_a_field_is_a_422_too() -> None:
    error = from_engine(RequestRefused("unreadable", field="messages[2].content[10].image_url"))
    assert error.mistral_status == 422
    assert error.mistral_body() == {
        "detail": [
            {
                "loc": ["body", "messages", 2, "content", 10, "image_url"],
                "msg": "unreadable",
                "type": "value_error",
            }
        ]
    }
    assert from_engine(RequestRefused("unreadable")).mistral_status == 400


def test_field_names() -> None:
    assert field_name(()) == ""
    assert field_name(("messages", 0, "content", 12, "text")) == "messages[0].content[12].text"


def test_openais_client_reads_all_it_knows() -> None:
    error = rate_limited("too many requests", retry_after_s=7)
    with open_wire(error.status, error.body(), error.headers()) as wire:
        client = openai.OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
    assert (caught.value.type, caught.value.code) == ("rate_limit_exceeded", "rate_limit_exceeded")
    assert "too many requests" in str(caught.value)
    assert caught.value.response.headers["Retry-After"] == "7"


def test_mistrals_client_reads_the_faults() -> None:
    with pytest.raises(ApiError) as caught:
        parse(body(temperature=3))
    error = caught.value
    with (
        open_wire(error.mistral_status, error.mistral_body(), error.headers()) as wire,
        Mistral(api_key="none", server_url=wire.url) as client,
        pytest.raises(HTTPValidationError) as told,
    ):
        client.chat.complete(model="tiny", messages=[UserMessage(content="a")], temperature=3)
    assert told.value.data.detail is not None
    assert told.value.data.detail[0].loc == ["body", "temperature"]
