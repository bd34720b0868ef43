from typing import Any

import pytest

from data.conversation import ToolDefinition
from serve.engine import RequestRefused
from serve.engines.tool_schema import check_tools

FIELD = "tools[1].function.parameters"


def tools(parameters: Any) -> list[ToolDefinition]:  # noqa: ANN401 (JSON)
    bare = {"type": "function", "function": {"name": "stop"}}
    return [bare, {"type": "function", "function": {"name": "look", "parameters": parameters}}]


def of(schema: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    return {"type": "object", "properties": {"q": schema}}


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        of({"type": "string", "pattern": "^(?=a)", "format": "email", "not": {"const": "x"}}),
        of({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
        of({"type": ["object", "null"], "additionalProperties": {"type": "integer"}}),
        of({"type": "array", "items": {"enum": [1, "a"]}, "uniqueItems": True, "minItems": 1}),
        of({"type": "number", "minimum": 0.5, "maximum": 0.5, "multipleOf": 2}),
        {"$ref": "#/definitions/Look", "definitions": {"Look": of({"type": "string"})}},
        of(True),
    ],
)
def test_what_is_followed_or_let_through_is_taken(parameters: Any) -> None:  # noqa: ANN401
    check_tools(tools(parameters))


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"type": "array"}, FIELD),
        (True, FIELD),
        ({"properties": {}}, FIELD),
        ({"type": "object", "anyOf": [{"required": ["q"]}]}, FIELD),
        ({"type": "object", "not": {}}, FIELD),
        ({"$ref": "#/nowhere"}, FIELD),
        ({"$ref": "#"}, FIELD),
        (of({"allOf": [{"type": "string"}]}), f"{FIELD}.properties.q"),
        (of({"items": {"type": "integer", "minimum": 5, "maximum": 3}}),
         f"{FIELD}.properties.q.items"),
        (of({"oneOf": [{"type": "string", "minLength": True}]}), f"{FIELD}.properties.q.oneOf[0]"),
        ({"type": "object", "$defs": {"A": {"minItems": 2, "maxItems": 1}}}, f"{FIELD}.$defs.A"),
    ],
)  # fmt: skip
def test_what_would_be_misread_is_refused_with_its_place(parameters: Any, field: str) -> None:  # noqa: ANN401
    with pytest.raises(RequestRefused) as error:
        check_tools(tools(parameters))
    assert error.value.field == field


def test_a_schema_within_itself_is_no_endless_work() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    with pytest.raises(RequestRefused, match="32 deep"):
        check_tools(tools(of(deep)))
