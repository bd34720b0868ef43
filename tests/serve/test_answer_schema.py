"""Which schemas are taken, and that the engine's answers then fit them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serve.answer_schema import MAX_DEPTH, check_schema
from serve.engine import JsonAnswer, RequestRefused
from tests.serve.engines.asking import ask, request, running, user

FOLLOWED: list[dict[str, Any]] = [
    {"type": "object"},
    {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 5}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"enum": ["red", "green", 3, None, {"a": [1]}]},
    {"type": "string", "enum": ["red", "green"]},
    {"const": {"a": 1}},
    {"anyOf": [{"type": "boolean"}, {"type": "integer", "exclusiveMinimum": 5, "maximum": 9}]},
    {"type": ["integer", "string"], "minimum": 3, "maximum": 9, "maxLength": 2},
    {"type": "number", "minimum": 3, "maximum": 3.5},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "format": "date-time"},
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"not": {}}, "schema: `not` is not supported"),
    ({"type": "string", "pattern": "a"}, "schema: `pattern` is not supported"),
    ({"type": "objekt"}, "schema.type must be one of object"),
    ({"type": []}, "schema.type must be one of"),
    ({"minLength": 3}, "`minLength` needs a `type` beside it"),
    ({"type": "boolean", "minimum": 3}, "`minimum` is not supported beside `type`"),
    ({"anyOf": [{"type": "null"}], "type": "null"}, "`type` is not supported beside `anyOf`"),
    ({"anyOf": []}, "schema.anyOf must be a list of schemas"),
    ({"enum": []}, "schema.enum must be a list of values"),
    ({"$ref": "#/$defs/a"}, "schema.$ref must name one of"),
    ({"$defs": []}, "schema.$defs must be an object"),
    ({"$defs": {"a": {"not": {}}}}, "schema.$defs.a: `not`"),
    ({"type": "object", "properties": []}, "schema.properties must be an object"),
    ({"type": "object", "properties": {"a": 1}}, "schema.properties.a must be an object"),
    ({"type": "object", "required": "a"}, "schema.required must be a list"),
    ({"type": "object", "required": ["a"]}, "schema.required names ['a']"),
    ({"type": "object", "additionalProperties": {"if": {}}}, "schema.additionalProperties: `if`"),
    ({"type": "array", "items": {"oneOf": []}}, "schema.items: `oneOf`"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "schema.minItems is above maxItems"),
    ({"type": "array", "minItems": "3"}, "schema.minItems is no number"),
    ({"type": "string", "maxLength": -1}, "schema.maxLength is no number"),
    ({"type": "string", "format": "email"}, "schema.format must be one of"),
    ({"type": "string", "format": "date", "maxLength": 9}, "not supported beside `format`"),
]


@pytest.mark.parametrize("schema", FOLLOWED, ids=json.dumps)
def test_answers_fit_the_schemas_that_are_taken(tiny_gguf: Path, schema: dict[str, Any]) -> None:
    check_schema(schema)

    async def ask_until_ended(num_ended: int) -> None:
        # A random model writes without end inside a string; answers that it ends must fit.
        async with running(tiny_gguf) as engine:
            for seed in range(100):
                given = {"temperature": 1.0, "max_tokens": 200, "seed": seed}
                asked = request(user("JSON"), json_answer=JsonAnswer(schema=schema), **given)
                [choice] = (await ask(engine, asked)).choices
                if choice.reason == "stop":
                    jsonschema.validate(
                        json.loads(choice.text),
                        schema,
                        format_checker=jsonschema.FormatChecker(),
                    )
                    num_ended -= 1
                if not num_ended:
                    return
        raise AssertionError("too few answers ended")

    asyncio.run(ask_until_ended(5))


@pytest.mark.parametrize(("schema", "message"), REFUSED, ids=lambda value: json.dumps(value)[:40])
def test_what_cannot_be_followed_is_refused_by_name(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_schema(schema)
    assert message in str(error.value)


def test_depth_has_a_limit() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(MAX_DEPTH):
        schema = {"type": "array", "items": schema}
    check_schema(schema)
    with pytest.raises(ValueError, match="nested more than"):
        check_schema({"type": "array", "items": schema})


def test_a_schema_that_nothing_satisfies_is_refused_rather_than_dropped(tiny_gguf: Path) -> None:
    schema = {"type": "integer", "minimum": 0.2, "maximum": 0.8}
    check_schema(schema)
    asked = request(
        user("JSON"),
        json_answer=JsonAnswer(schema=schema),
        temperature=1.0,
        seed=0,
        max_tokens=400,
    )

    async def ask_it() -> None:
        async with running(tiny_gguf) as engine:
            await ask(engine, asked)

    with pytest.raises(RequestRefused, match="the schema cannot be followed"):
        asyncio.run(ask_it())
