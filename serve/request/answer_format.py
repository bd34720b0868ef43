"""The form that a request asks of its answer."""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from serve.engine import JsonAnswer
from serve.request.body import Body, JsonObject, Name, refuse
from serve.request.rules import given


class JsonSchema(Body):
    """A named schema; answers are held to it whatever `strict` says."""

    name: Name
    description: str = ""
    strict: bool = True
    schema_: JsonObject = Field(alias="schema")
    """The JSON schema of the answer."""


class ResponseFormat(Body):
    """The form of the answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "json_schema"}}, "required": ["type"]},
            "then": given("json_schema"),
            "else": {"not": given("json_schema")},
        }
    )

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema_given(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            refuse("goes with the type json_schema, and only with it", "json_schema")
        return self

    def to_json_answer(self) -> JsonAnswer | None:
        """None for plain text."""
        if self.type == "text":
            return None
        if self.json_schema is None:
            return JsonAnswer()
        schema: dict[str, Any] = self.json_schema.schema_
        return JsonAnswer(
            schema=schema, name=self.json_schema.name, description=self.json_schema.description
        )
