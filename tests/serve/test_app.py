"""The interface over real HTTP, with the plain OpenAI client and with raw requests."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from serve.app import build_app
from serve.engine import EngineError, TextDelta
from tests.serve.conftest import ALIAS, MODEL
from tests.serve.scripted import Step, scripted_service

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "the river"}]


def body(**fields: object) -> dict[str, Any]:
    """A request body that is accepted, but for what `fields` change."""
    return {"model": MODEL, "messages": QUESTION, "max_tokens": 5, "temperature": 0} | fields


def post(http: httpx.Client, content: object) -> httpx.Response:
    return http.post("/v1/chat/completions", json=content)


def stream_chunks(http: httpx.Client, content: dict[str, Any]) -> list[Any]:
    """The parsed `data:` events of a stream, its end marker as the string [DONE]."""
    with http.stream("POST", "/v1/chat/completions", json=content) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    events = [line.removeprefix("data: ") for line in lines]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


def test_the_openai_client_gets_an_answer(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=8, temperature=0
    )
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert abs(answer.created - time.time()) < 60
    [choice] = answer.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "length", "assistant")
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_the_openai_client_streams_the_same_answer(openai_client: OpenAI) -> None:
    whole = openai_client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=30, temperature=0
    )
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=30, temperature=0, stream=True
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == whole.choices[0].message.content
    assert len([text for text in texts if text]) > 10


def test_a_stream_has_role_text_reason_usage_and_end_in_this_order(http: httpx.Client) -> None:
    content = body(stream=True, stream_options={"include_usage": True}, max_tokens=20)
    first, *texts, last, usage, end = stream_chunks(http, content)
    assert end == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 20
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in texts] == [None] * len(texts)
    assert all(list(chunk["choices"][0]["delta"]) == ["content"] for chunk in texts)
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    chunks = [first, *texts, last, usage]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1


def test_a_stream_without_the_option_has_no_usage(http: httpx.Client) -> None:
    chunks = stream_chunks(http, body(stream=True))
    assert chunks[-1] == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)


def test_models_are_listed_and_retrieved_under_each_name(openai_client: OpenAI) -> None:
    listed = list(openai_client.models.list())
    assert [card.id for card in listed] == [MODEL, ALIAS]
    assert openai_client.models.retrieve(ALIAS) == listed[1]
    assert listed[0].owned_by == "tunery"
    answer = openai_client.chat.completions.create(model=ALIAS, messages=QUESTION, max_tokens=1)
    assert answer.model == ALIAS


def test_an_unknown_model_is_a_404_for_the_openai_client(openai_client: OpenAI) -> None:
    for ask in (
        lambda: openai_client.models.retrieve("nobody/none"),
        lambda: openai_client.chat.completions.create(model="nobody/none", messages=QUESTION),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            ask()
        assert error.value.body == {
            "message": "Model not found: nobody/none",
            "type": "resource_not_found",
            "param": "model",
            "code": "model_not_found",
            "title": "Not found",
            "detail": "Model not found: nobody/none",
        }


def test_health_names_the_models(http: httpx.Client) -> None:
    for path in ("/health", "/health/ready"):
        response = http.get(path)
        assert response.status_code == 200
        assert response.json() == {"status": "ok", "models": [MODEL, ALIAS]}
    assert http.get("/health/live").json() == {"status": "ok"}


def test_all_honoured_fields_are_taken_together(http: httpx.Client) -> None:
    content = body(
        max_tokens=None,
        max_completion_tokens=4,
        temperature=1.5,
        top_p=0.9,
        frequency_penalty=-2,
        presence_penalty=2.0,
        stop=["zz", "yy"],
        seed=7,
        n=1,
        logprobs=False,
        tools=None,
        user="someone",
        response_format={"type": "text"},
        messages=[
            {"role": "system", "content": "the market"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "the"}, {"type": "text", "text": "stone"}],
            },
            {"role": "assistant", "content": "river", "refusal": None},
        ],
    )
    response = post(http, content)
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] <= 4


def test_content_parts_are_joined_by_line_ends(http: httpx.Client) -> None:
    parts = [{"type": "text", "text": "the river"}, {"type": "text", "text": "stone"}]
    whole = "the river\nstone"
    answers = [
        post(http, body(messages=[{"role": "user", "content": content}])).json()
        for content in (parts, whole)
    ]
    assert answers[0]["choices"] == answers[1]["choices"]


def test_json_comes_as_an_object(http: httpx.Client) -> None:
    content = body(response_format={"type": "json_object"}, temperature=1.0, max_tokens=300)
    for seed in range(20):
        answer = post(http, content | {"seed": seed}).json()["choices"][0]
        if answer["finish_reason"] == "stop":
            assert isinstance(json.loads(answer["message"]["content"]), dict)
            return
    raise AssertionError("no answer ended")


def test_random_seed_is_seed(http: httpx.Client) -> None:
    first = post(http, body(temperature=1.0, seed=3)).json()["choices"]
    assert post(http, body(temperature=1.0, random_seed=3)).json()["choices"] == first
    assert post(http, body(temperature=1.0, random_seed=4)).json()["choices"] != first


def test_without_a_temperature_answers_vary(http: httpx.Client) -> None:
    content = body(max_tokens=20)
    del content["temperature"]
    texts = {post(http, content).json()["choices"][0]["message"]["content"] for _ in range(4)}
    assert len(texts) > 1


TOO_LONG = [{"role": "user", "content": "a" * 9000}]
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "You must specify a model to call"),
    ({"messages": []}, "messages", "Messages array cannot be empty"),
    ({"messages": None}, "messages", "Field required"),
    ({"messages": "hello"}, "messages", "valid list"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "Field required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "a string or an array"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "at least 1"),
    (
        {"messages": [{"role": "user", "content": IMAGE}]},
        "messages[0].content[0].image_url",
        "the model takes no images",
    ),
    (
        {"messages": [{"role": "user", "content": "a", "name": "b"}]},
        "messages[0].name",
        "supported",
    ),
    ({"messages": [{"role": "user", "content": "unanswerable"}]}, "messages", "no unanswerable"),
    ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools", "takes no tools"),
    ({"max_tokens": 8193}, "max_tokens", "at most 8192"),
    ({"messages": TOO_LONG}, "messages", "the prompt has 9010 tokens"),
    ({"messages": TOO_LONG}, "messages", "holds 8192 tokens"),
    ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": "0.5"}, "temperature", "valid number"),
    ({"temperature": True}, "temperature", "valid number"),
    ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
    ({"frequency_penalty": 3}, "frequency_penalty", "less than or equal to 2"),
    ({"presence_penalty": -3}, "presence_penalty", "greater than or equal to -2"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 1.5}, "max_tokens", "valid integer"),
    ({"max_tokens": None, "max_completion_tokens": 0}, "max_completion_tokens", "equal to 1"),
    ({"max_completion_tokens": 5}, "max_completion_tokens", "not both"),
    ({"seed": 1, "random_seed": 1}, "random_seed", "not both"),
    ({"seed": 0.5}, "seed", "valid integer"),
    ({"stop": ""}, "stop[0]", "at least 1"),
    ({"stop": ["a"] * 17}, "stop", "at most 16"),
    ({"stop": 5}, "stop", "valid list"),
    ({"stream": "yes"}, "stream", "valid boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream: true"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not supported"),
    ({"temprature": 1}, "temprature", "did you mean `temperature`?"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "not 'xml'"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "goes with"),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"if": {}}},
            }
        },
        "response_format.json_schema.schema",
        "`if` is not supported",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "param", "message"), REFUSED)
def test_what_cannot_be_honoured_is_a_400_that_names_the_field(
    http: httpx.Client, fields: dict[str, Any], param: str, message: str, stream: bool
) -> None:
    if stream and not fields.keys() & {"stream", "stream_options"}:
        fields = fields | {"stream": True}
    response = post(http, body(**fields))
    assert response.status_code == 400, response.text
    answer = response.json()
    assert answer["error"]["param"] == param
    assert message in answer["error"]["message"]
    assert answer["error"]["type"] == answer["status_message"] == "invalid_params"
    assert answer["error"]["detail"] == answer["error"]["message"]
    assert answer["status"] == "error"


def test_a_prompt_beyond_the_context_has_openais_code(http: httpx.Client) -> None:
    error = post(http, body(messages=TOO_LONG)).json()["error"]
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe{",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "\\ud800": 1}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "seed": '
        + b"9" * 5000
        + b"}",
        b"[" * 100_000,
    ],
)
def test_no_body_is_a_server_error(http: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = http.post("/v1/chat/completions", content=content, headers=headers)
    assert response.status_code in (400, 404), response.text
    assert response.json()["error"]["message"]


def test_other_paths_and_methods_answer_in_the_same_shape(http: httpx.Client) -> None:
    for response, status in (
        (http.get("/v1/nothing"), 404),
        (http.get("/v1/chat/completions"), 405),
        (http.post("/v1/chat/completions", data={"model": MODEL}), 415),
    ):
        assert response.status_code == status
        assert response.json()["status"] == "error"
        assert response.json()["error"]["message"]


def test_requests_at_the_same_time_get_the_answers_they_get_alone(http: httpx.Client) -> None:
    contents = [
        body(messages=[{"role": "user", "content": f"river {index}"}], max_tokens=30)
        for index in range(12)
    ]
    alone = [post(http, content).json()["choices"] for content in contents]
    with ThreadPoolExecutor(len(contents)) as pool:
        together = list(pool.map(lambda content: post(http, content).json()["choices"], contents))
    assert together == alone


def seconds_until_answered(http: httpx.Client) -> float:
    started = time.perf_counter()
    assert post(http, body(max_tokens=1)).status_code == 200
    return time.perf_counter() - started


def test_a_client_that_leaves_a_stream_frees_the_slot(http: httpx.Client) -> None:
    content = body(stream=True, max_tokens=None)  # greedy answers of this model never end
    with http.stream("POST", "/v1/chat/completions", json=content) as response:
        next(response.iter_lines())
    assert seconds_until_answered(http) < 0.5


def test_a_client_that_does_not_wait_for_its_answer_frees_the_slot(http: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body(max_tokens=None), timeout=0.5)
    assert seconds_until_answered(http) < 0.5


def test_a_client_that_leaves_the_line_is_forgotten(http: httpx.Client) -> None:
    endless = body(stream=True, max_tokens=None)
    with http.stream("POST", "/v1/chat/completions", json=endless) as response:
        next(response.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json=body(max_tokens=None), timeout=0.3)
    assert seconds_until_answered(http) < 0.5


def ask_breaking(*steps: Step, stream: bool) -> httpx.Response:
    """The answer of a server whose only backend does these steps."""

    async def ask() -> httpx.Response:
        service = scripted_service(MODEL, steps)
        transport = httpx.ASGITransport(build_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.post("/v1/chat/completions", json=body(stream=stream))

    return asyncio.run(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_is_a_500_with_its_reason(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    response = ask_breaking(EngineError("out of memory"), stream=stream)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the engine failed: out of memory"
    assert response.json()["status_message"] == "unknown_error"
    assert "out of memory" in caplog.text


def test_an_engine_that_fails_within_a_stream_ends_it_with_the_error() -> None:
    steps = [TextDelta(text="river")] * 2
    fault = EngineError("out of memory")
    events = ask_breaking(*steps, fault, stream=True).text.split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["type"] == "unknown_error"
    assert "[DONE]" not in events[-2]
    assert "river" in events[2]


def test_a_fault_of_ours_is_a_500_without_its_inside() -> None:
    response = ask_breaking(KeyError("secret"), stream=False)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the server failed to answer"
