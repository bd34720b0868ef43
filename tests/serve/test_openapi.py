"""The OpenAPI document: valid, complete, and true of what the parser takes and errors look like."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from serve.engine import EngineModel, RequestRefused
from serve.errors import ApiError, from_engine, model_not_found, rate_limited
from serve.models_list import model_object, models_list
from serve.openapi import PREFIXES, openapi_document
from serve.request.chat_request import parse_chat_request
from tests.serve.request.test_json_schema import OUTSIDE_JSON_SCHEMA, refusal

TINY = EngineModel(name="engine's", context_length=100)
MODELS = {"tiny": TINY}
COMPLETION = "/chat/completions"


async def answer(request: Request) -> Response:
    """Nothing: of these applications only the paths matter."""
    return Response()


def app_with_all_paths(*further: Route) -> Starlette:
    below = [Route(COMPLETION, answer, methods=["POST"])]
    below += [Route(f"/models{rest}", answer) for rest in ("", "/search", "/{name:path}")]
    paths = ("/health/live", "/health/ready", "/health", "/metrics", "/openapi.json")
    beside = [Route(path, answer) for path in paths]
    mounted = [Mount(prefix, routes=below) for prefix in PREFIXES]
    return Starlette(routes=[*mounted, *beside, *further])


def document(*, keys: bool = True) -> dict[str, Any]:
    return openapi_document(app_with_all_paths(), models=MODELS, keys=keys)


def statuses(path: str, method: str, *, keys: bool) -> list[int]:
    return [int(status) for status in document(keys=keys)["paths"][path][method]["responses"]]


def test_every_path_of_the_application_is_described() -> None:
    told = document()
    assert len(told["paths"]) == 4 * len(PREFIXES) + 4
    json.dumps(told)
    operations = list(schemathesis.openapi.from_dict(told).get_all_operations())
    assert len(operations) == len(told["paths"])
    assert all(isinstance(operation, Ok) for operation in operations)


def test_a_path_that_is_not_described_is_an_error() -> None:
    app = app_with_all_paths(Route("/secret", answer))
    with pytest.raises(ValueError, match="not described: /secret"):
        openapi_document(app, models=MODELS, keys=True)


def test_what_is_not_served_or_meant_for_people_is_left_out() -> None:
    page = Route("/", answer, include_in_schema=False)
    app = Starlette(routes=[page, Route("/health/live", answer)])
    assert list(openapi_document(app, models=MODELS, keys=False)["paths"]) == ["/health/live"]


def test_keys_are_asked_for_where_there_are_some() -> None:
    operation = document(keys=True)["paths"]["/v1/models"]["get"]
    assert operation["security"] == [{"key": []}]
    told = document(keys=False)
    assert "security" not in told["paths"]["/v1/models"]["get"]
    assert "securitySchemes" not in told["components"]


def test_all_statuses_are_told() -> None:
    path = f"/v1{COMPLETION}"
    assert statuses(path, "post", keys=True) == [200, 400, 401, 404, 413, 415, 429, 500, 503]
    path = f"/mistral/v1{COMPLETION}"
    assert statuses(path, "post", keys=False) == [200, 400, 404, 413, 415, 422, 429, 500, 503]
    assert statuses("/api/ai/models/{name}", "get", keys=True) == [200, 401, 404, 429]
    assert statuses("/health/ready", "get", keys=True) == [200, 503]


def schema_of(path: str, status: int, *, method: str = "post") -> Draft202012Validator:
    told = document()
    answer = told["paths"][path][method]["responses"][str(status)]
    schema = answer["content"]["application/json"]["schema"]
    text = json.dumps({"allOf": [schema], "$defs": told["components"]["schemas"]})
    return Draft202012Validator(json.loads(text.replace("#/components/schemas/", "#/$defs/")))


@pytest.mark.parametrize(
    "error",
    [
        model_not_found("nobody"),
        rate_limited("too many", retry_after_s=1),
        from_engine(RequestRefused("no", field="messages[0]")),
        from_engine(RequestRefused("no")),
        from_engine(KeyError("inside")),
    ],
    ids=str,
)
def test_errors_are_as_described(error: ApiError) -> None:
    schema_of(f"/v1{COMPLETION}", error.status).validate(error.body())
    schema_of(f"/mistral/v1{COMPLETION}", error.mistral_status).validate(error.mistral_body())
    assert not schema_of(f"/v1{COMPLETION}", error.status).is_valid(error.mistral_body())


def test_models_are_as_described() -> None:
    told = model_object(TINY, name="tiny", kind="base", created=5)
    schema_of("/v1/models/{name}", 200, method="get").validate(told)
    schema_of("/api/ai/models", 200, method="get").validate(models_list([told]))


LOGPROB = {"token": "a", "bytes": [97], "logprob": -0.1}
HEAD = {"id": "chatcmpl-1", "created": 5, "model": "tiny"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"},
        {
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
            "logprobs": {"content": [LOGPROB | {"top_logprobs": [LOGPROB]}]},
        },
    ],
)
def test_answers_as_openais_types_have_them(choice: dict[str, Any]) -> None:
    answer = HEAD | {
        "object": "chat.completion",
        "usage": USAGE,
        "choices": [choice | {"index": 0}],
    }
    schema = schema_of(f"/v1{COMPLETION}", 200)
    schema.validate(answer)
    assert not schema.is_valid(answer | {"object": "chat.completion.chunk"})
    assert not schema.is_valid(answer | {"choices": [choice]})
    unended = choice | {"index": 0, "finish_reason": None}
    assert not schema.is_valid(answer | {"choices": [unended]})


def test_streams_are_described_by_their_events() -> None:
    told = document()
    content = told["paths"][f"/v1{COMPLETION}"]["post"]["responses"]["200"]["content"]
    event = content["text/event-stream"]["schema"]
    assert Draft202012Validator(event).is_valid({"event": "message", "data": "[DONE]"})
    done, piece = event["properties"]["data"]["anyOf"]
    assert done == {"const": "[DONE]"}
    schemas = [one["$ref"].split("/")[-1] for one in piece["contentSchema"]["anyOf"]]
    assert schemas == ["ChatCompletionChunk", "Error"]
    text = json.dumps(
        {"$ref": "#/$defs/ChatCompletionChunk", "$defs": told["components"]["schemas"]}
    )
    chunk = Draft202012Validator(json.loads(text.replace("#/components/schemas/", "#/$defs/")))
    head = HEAD | {"object": "chat.completion.chunk"}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "a", "arguments": ""}}
    for delta in (
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"tool_calls": [call]},
        {},
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        chunk.validate(head | {"choices": [choice]})
    chunk.validate(head | {"choices": [], "usage": USAGE})
    assert not chunk.is_valid(head)


LAX = settings(
    max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
OPERATION = schemathesis.openapi.from_dict(document())[f"/v1{COMPLETION}"]["POST"]


@LAX
@given(case=OPERATION.as_strategy(generation_mode=GenerationMode.POSITIVE))
def test_what_the_document_promises_is_taken(case: schemathesis.Case[Any]) -> None:
    message = refusal(case.body, TINY)
    assert not message or any(rule in message for rule in OUTSIDE_JSON_SCHEMA), message


COMPONENTS = json.dumps(document()["components"]["schemas"]).replace("components/schemas", "$defs")
REQUEST = Draft202012Validator(
    {"$ref": "#/$defs/ChatRequest", "$defs": json.loads(COMPONENTS)},
)


@LAX
@given(case=OPERATION.as_strategy(generation_mode=GenerationMode.NEGATIVE))
def test_what_the_document_excludes_is_refused(case: schemathesis.Case[Any]) -> None:
    if isinstance(case.body, bytes):  # no JSON at all
        with pytest.raises(ApiError):
            parse_chat_request(case.body)
    elif not REQUEST.is_valid(case.body):  # else the fault is in a header
        assert refusal(case.body, TINY)
