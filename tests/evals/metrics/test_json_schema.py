import json
import socket
from typing import Any

import pytest

from configs.errors import UserError
from evals.metrics.json_schema import check_schema, score_json_schema
from evals.metrics.score import Reply, Score
from tests.evals.metrics.questions import question_of

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"tag": {"enum": ["a", "b"]}},
}


def score(text: str, schema: object = PERSON) -> Score:
    return score_json_schema(Reply(text), question_of("{}", json_schema=schema))


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada"}',
        '  {"name": "Ada", "age": 36.0}\n',
        '```json\n{"name": "Ada", "tags": ["a"]}\n```',
        '```\n{"name": "Ada"}\n```\n',
        '~~~\n{"name": "Ada"}\n~~~',
        '```json\r\n{"name": "Zoë ```"}\r\n```',
    ],
)
def test_json_that_follows_the_schema(text: str) -> None:
    assert score(text) == Score(1.0, "valid")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "$: 'name' is a required property"),
        ('{"name": "Ada", "age": -1}', "$.age: -1 is less than the minimum of 0"),
        ('{"name": "Ada", "tags": ["a", "c"]}', "$.tags[1]: 'c' is not one of ['a', 'b']"),
        ('{"name": "Ada", "x": 1}', "$: Additional properties"),
        ('{"name": "Ada", "age": true}', "$.age: True is not of type 'integer'"),
        ("[]", "$: [] is not of type 'object'"),
    ],
)
def test_the_first_violation_is_told_with_its_path(text: str, why: str) -> None:
    found = score(text)
    assert (found.value, found.label) == (0, "invalid")
    assert found.why.startswith(why)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        'Here it is: {"name": "Ada"}',
        'Sure:\n```json\n{"name": "Ada"}\n```',
        '```json\n{"name": "Ada"}\n```\n```json\n{"name": "Ada"}\n```',
        '{"name": "Ada"} {"name": "Bob"}',
        "{'name': 'Ada'}",
        '{"name": "Ada",}',
        '{"name": "Ada", "age": NaN}',
        '{"name": "Ada", "age": Infinity}',
        '```json\n{"name": "Ada"}',
        "[" * 100_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        "1" * 100_000,
        "`" * 100_000,
        "```\n" * 25_000,
    ],
)
def test_what_is_no_json_is_not_searched_for_some(text: str) -> None:
    found = score(text)
    assert (found.value, found.label) == (0, "")
    assert found.why.startswith("not JSON")
    assert len(found.why) <= 300


def test_a_long_valid_answer_is_read() -> None:
    assert score(json.dumps({"name": "x" * 100_000})).value == 1
    assert len(score(json.dumps(["x" * 100_000])).why) <= 300


def test_a_schema_may_name_another_draft() -> None:
    # `items` as a list of schemas is that of draft 7; 2020-12 calls it prefixItems.
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "items": [{"type": "string"}, {"type": "integer"}],
    }
    check_schema(schema)
    assert score('["a", 1]', schema).value == 1
    assert score('["a", "b"]', schema).value == 0


def test_nested_ids_are_resolved() -> None:
    schema = {
        "$id": "https://example.org/root",
        "$ref": "part#/$defs/x",
        "$defs": {"part": {"$id": "part", "$defs": {"x": {"type": "string"}}}},
    }
    check_schema(schema)
    assert score('"a"', schema).value == 1
    assert score("1", schema).value == 0


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "strin"}, "$.type"),
        ({"required": "name"}, "$.required"),
        ({"properties": {"a": {"pattern": "("}}}, "pattern"),
        ({"properties": {"b": {"items": {"$ref": "#/$defs/none"}}}}, "reference /$defs/none"),
        ({"$ref": "https://example.org/schema.json"}, "https://example.org/schema.json"),
        ({"$dynamicRef": "https://example.org/other.json"}, "https://example.org/other.json"),
        ({"$ref": "#"}, "without end"),
    ],
)
def test_schemas_that_cannot_judge_are_refused_before_anything_is_asked(
    schema: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def refuse(address: object, *_: object, **__: object) -> None:
        opened.append(address)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError, match="cannot judge answers") as raised:
        check_schema(schema, where="evaluation.json_schema")
    assert told in raised.value.what
    assert raised.value.where == "evaluation.json_schema"
    assert not opened


def test_good_schemas_pass() -> None:
    check_schema(PERSON)
    check_schema({"type": "array", "items": {"$ref": "#"}})
    check_schema({})
