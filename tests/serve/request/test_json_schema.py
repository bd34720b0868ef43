"""The published JSON Schema says what is accepted: neither more nor less, held against the parser.

Bodies are built from values that are taken, then changed anywhere to values that mostly are not.
"""

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from serve.engine import EngineModel
from serve.errors import ApiError
from serve.request.chat_request import ChatRequest
from serve.request.json_schema import BASIC, request_definitions, request_schema
from tests.serve.request.bodies import MODEL, PIXEL, call, calling, parse, reply, tool, user

TEXT_ONLY = EngineModel(name="engine's", context_length=100)
WITH_IMAGES = EngineModel(name="engine's", context_length=100, takes_images=True)
SCHEMAS = {model: request_schema(model, name=MODEL) for model in (TEXT_ONLY, WITH_IMAGES)}
VALIDATORS = {model: Draft202012Validator(schema) for model, schema in SCHEMAS.items()}

OUTSIDE_JSON_SCHEMA = (
    "answers no call of a turn",
    "the call was one of",
    "two calls have the id",
    "two tools have the name",
    "is not among the tools",
    "must be JSON text of an object",
    "nested more than",
)
"""Rules that the schema's own docstring names as beyond it."""

TEXT_PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]
IMAGES = [
    {"type": "image_url", "image_url": PIXEL},
    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "auto"}},
]
TALKS: list[list[dict[str, Any]]] = [
    [user("a")],
    [{"role": "developer", "content": TEXT_PARTS}, user(TEXT_PARTS)],
    [user([*TEXT_PARTS, IMAGES[0]])],
    [user([IMAGES[1]]), {"role": "assistant", "content": "b", "prefix": False}, user("c")],
    [user("a"), calling(call(arguments={"b": [None]})), reply(name="look_up"), user("c")],
    [user("a"), calling(call(arguments=""), call("call_2"), content="b"), reply("call_2"), reply()],
]
LOOK_UP = tool(description="Looks up.", parameters={"type": "object"}, strict=True)
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"x": None}}}
VALUES: dict[str, list[Any]] = {
    "stream": [True, False],
    "max_tokens": [1, 100, 5.0],
    "max_completion_tokens": [1, 100],
    "temperature": [0, 0.5, 2],
    "top_p": [0, 1, 0.5],
    "stop": ["a", ["a", "b"], []],
    "seed": [-5, 2**63 - 1, 1.0],
    "random_seed": [0],
    "response_format": [FORMAT, {"type": "json_object"}, {"type": "text"}, {}],
    "tools": [[], [LOOK_UP], [tool(), tool("b")]],
    "tool_choice": ["auto", "none", "any", "required", {"function": {"name": "look_up"}}],
    "parallel_tool_calls": [True, False],
    "n": [1, 16],
    "frequency_penalty": [-2, 2],
    "presence_penalty": [0.5],
    "logprobs": [True, False],
    "top_logprobs": [0, 20],
    "stream_options": [{}, {"include_usage": True, "include_obfuscation": False}],
    "safe_prompt": [True],
    "user": ["", "someone"],
    "prediction": [{}, {"type": "content", "content": ""}],
    "store": [False],
    "metadata": [{}],
    "logit_bias": [{}],
    "modalities": [["text"]],
    "service_tier": ["auto", "default", "standard_only"],
    "reasoning_effort": ["none"],
}
ODD: list[Any] = [
    *(None, True, False, 0, 1, 1.0, 1.5, -1, 3, 101, 10**30, "", "text", "user", "tool", "auto"),
    *("function", "json_schema", "a b", "a" * 65, "a" * 600, [], [None], [""], ["a"] * 17, {}),
    *({"a": 1}, {"type": "text", "text": "a"}, IMAGES[0], LOOK_UP, FORMAT, call(), user("a")),
]
NAMES = ["name", "content", "type", "index", "strict", "prefix", "temprature", "tool_calls", "n"]


@st.composite
def taken(draw: st.DrawFn) -> dict[str, Any]:
    """Bodies of values that are taken each by itself."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True))
    values = {name: draw(st.sampled_from(VALUES[name])) for name in chosen}
    return copy.deepcopy({"model": MODEL, "messages": draw(st.sampled_from(TALKS)), **values})


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """Bodies in which up to two places hold something else, nothing, or something more."""
    body = draw(taken())
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(body))
        container, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if change == "replace":
            container[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            name = draw(st.sampled_from([*NAMES, *VALUES]))
            container[name] = copy.deepcopy(draw(st.sampled_from(ODD)))
        else:
            container.append(copy.deepcopy(draw(st.sampled_from(ODD))))
    return body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def refusal(body: object, model: EngineModel) -> str:
    """Why the server would not take a body for `model`; empty where it would."""
    try:
        request = parse(body)
        request.check_model(model)
        request.to_completion(images={PIXEL: PIXEL, "a": PIXEL, "text": PIXEL})
    except ApiError as error:
        assert error.status == 400
        return error.message
    except KeyError:
        return ""  # an address that nobody fetched here
    return "" if request.model == MODEL else "Model not found"


def check_agreement(body: dict[str, Any], model: EngineModel) -> None:
    message = refusal(body, model)
    if any(rule in message for rule in OUTSIDE_JSON_SCHEMA):
        return
    faults = [fault.message for fault in VALIDATORS[model].iter_errors(body)]
    assert bool(faults) == bool(message), (message, faults)


@pytest.mark.parametrize("model", [TEXT_ONLY, WITH_IMAGES], ids=["text", "images"])
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.one_of(taken(), changed()))
def test_the_schema_takes_what_the_server_takes(model: EngineModel, body: dict[str, Any]) -> None:
    check_agreement(body, model)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_they_agree_on_each_field_by_itself(name: str) -> None:
    for value in [*ODD, *VALUES[name]]:
        check_agreement({"model": MODEL, "messages": TALKS[0], name: value}, TEXT_ONLY)


PAIRS = [
    ("max_tokens", "max_completion_tokens", [None, 5]),
    ("seed", "random_seed", [None, 5]),
    ("stream_options", "stream", [None, {}, True, False]),
    ("top_logprobs", "logprobs", [None, 0, True, False]),
    ("tool_choice", "tools", [None, "auto", "none", "any", "required", [], [LOOK_UP]]),
]


@pytest.mark.parametrize(("first", "second", "values"), PAIRS)
def test_they_agree_on_fields_that_need_or_exclude_each_other(
    first: str, second: str, values: list[Any]
) -> None:
    for one, other in itertools.product(values, values):
        body = {"model": MODEL, "messages": TALKS[0], first: one, second: other}
        check_agreement(body, TEXT_ONLY)


def test_they_agree_on_which_formats_have_a_schema() -> None:
    for kind in (None, "text", "json_object", "json_schema", "xml"):
        for schema in (None, FORMAT["json_schema"], {}):
            asked = {"type": kind, "json_schema": schema}
            for form in (asked, {key: asked[key] for key in asked if asked[key] is not None}):
                body = {"model": MODEL, "messages": TALKS[0], "response_format": form}
                check_agreement(body, TEXT_ONLY)


def test_the_bodies_of_that_test_are_of_both_kinds() -> None:
    """Without this the test above could agree that nothing is ever taken."""
    for talk in TALKS:
        assert refusal({"model": MODEL, "messages": talk}, WITH_IMAGES) == ""
    for name, values in VALUES.items():
        for value in values:
            body = {"model": MODEL, "messages": TALKS[0], name: value}
            body |= {"stream": True} if name == "stream_options" else {}
            body |= {"logprobs": True} if name == "top_logprobs" else {}
            body |= {"tools": [LOOK_UP]} if name == "tool_choice" else {}
            assert refusal(body, TEXT_ONLY) == "", (name, value)
            assert VALIDATORS[TEXT_ONLY].is_valid(body), (name, value)


@pytest.mark.parametrize("model", [TEXT_ONLY, WITH_IMAGES], ids=["text", "images"])
def test_it_is_a_schema_that_needs_nothing_else(model: EngineModel) -> None:
    schema = SCHEMAS[model]
    Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references == schema["$defs"].keys()
    assert ("ImagePart" in text) == model.takes_images
    assert '"ge":' not in text
    assert '"le":' not in text


def test_a_request_builder_finds_what_it_shows() -> None:
    schema = SCHEMAS[TEXT_ONLY]
    fields = schema["properties"]
    assert schema["basic"] == BASIC
    assert fields.keys() >= {*BASIC}
    assert schema["required"] == ["model", "messages"]
    orders = [field["x-order"] for field in fields.values()]
    assert sorted(orders) == list(range(len(fields)))
    assert all(field["description"] for field in fields.values())
    assert fields["temperature"] | {"x-order": 0} == {
        "title": "Temperature",
        "description": "How freely tokens are drawn; 0 always takes the likeliest.",
        "type": ["number", "null"],
        "default": 0.7,
        "minimum": 0,
        "maximum": 2,
        "x-order": 0,
    }
    assert fields["max_tokens"]["maximum"] == fields["max_completion_tokens"]["maximum"] == 100
    assert fields["model"]["enum"] == [MODEL]


def test_a_model_whose_context_is_unknown_has_no_limit_of_its_own() -> None:
    schema = request_schema(EngineModel(name="far", context_length=None), name="far")
    assert schema["properties"]["max_tokens"]["maximum"] == 2**31 - 1


def test_every_field_has_a_place_in_these_tests() -> None:
    assert ChatRequest.model_fields.keys() == {"model", "messages", *VALUES}


def test_several_models_share_one_schema_of_what_any_of_them_takes() -> None:
    near = EngineModel(name="near", context_length=50)
    schemas = request_definitions("#/{model}", {"near": near, "far": WITH_IMAGES})
    fields = schemas["ChatRequest"]["properties"]
    assert fields["model"]["enum"] == ["near", "far"]
    assert "default" not in fields["model"]
    assert fields["max_tokens"]["maximum"] == 100
    assert "ImagePart" in schemas
    unknown = EngineModel(name="hosted", context_length=None)
    schemas = request_definitions("#/{model}", {"near": near, "hosted": unknown})
    assert schemas["ChatRequest"]["properties"]["max_tokens"]["maximum"] == 2**31 - 1
    assert "ImagePart" not in schemas


def test_making_one_schema_leaves_the_others_as_they_were() -> None:
    before = json.dumps(SCHEMAS[TEXT_ONLY])
    request_schema(WITH_IMAGES, name="other").clear()
    assert json.dumps(request_schema(TEXT_ONLY, name=MODEL)) == before
