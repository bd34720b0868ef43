"""What all parts of a request body share: strict types, no unknown fields, null counts as absent.

An ignored field is an answer to another question, so whatever is not known is refused by name.
JSON has one kind of number: 5.0 is the integer 5, as JSON Schema has it.
"""

from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, NoReturn

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_DEPTH = 100
"""Arrays and objects within each other, in what is handed on as it is."""
WRITABLE_DEPTH = 254
"""What orjson writes; asking it is a hundred times faster than to walk."""

Path = tuple[str | int, ...]


def refuse(message: str, *path: str | int) -> NoReturn:
    """Raise a validator's error about the field that `path` leads to from the validated value."""
    # As a value of the template: a message may quote braces.
    raise PydanticCustomError("refused", "{message}", {"message": message, "path": path})


class Body(BaseModel):
    """Base of all objects in a request."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        """Also raises at the first unknown field: there may be a million of them."""
        if not isinstance(value, dict):
            return value
        names = _field_names(cls)
        if value.keys() <= names and None not in value.values():
            return value
        given = {name: field for name, field in value.items() if field is not None}
        unknown = next((name for name in given if name not in names), None)
        if unknown is not None:
            refuse(f"this field is not supported{cls._remedy(unknown)}", unknown)
        return given

    @classmethod
    def _remedy(cls, name: str) -> str:
        """What follows the words that the field `name` is not supported."""
        close = get_close_matches(name[:64], _field_names(cls), n=1)
        return f"; did you mean `{close[0]}`?" if close else ""


@cache
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Whole = BeforeValidator(_whole)
"""Stands behind the limits of an integer."""


def _only_false(value: bool) -> bool:
    if value:
        refuse("only false is taken")
    return value


# Not Literal[False], which takes 0 as well.
OnlyFalse = Annotated[bool, Field(json_schema_extra={"const": False}), AfterValidator(_only_false)]

Name = Annotated[str, Field(min_length=1, max_length=256)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


def _check_depth(value: dict[str, Any]) -> dict[str, Any]:
    nested: object = value
    for _ in range(WRITABLE_DEPTH - MAX_DEPTH):
        nested = [nested]
    try:
        orjson.dumps(nested)
    except orjson.JSONEncodeError:
        refuse(f"nested more than {MAX_DEPTH} deep")
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_check_depth)]
"""An object of the client's own making, such as a JSON schema: handed on as it is."""


def _arguments(value: object) -> object:
    """JSON text of an object, from one, from an object, or from the "" of calls without any."""
    if isinstance(value, dict):
        return orjson.dumps(_check_depth(value)).decode()
    if not isinstance(value, str) or value == "{}":
        return value
    if not value.strip():
        return "{}"
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        refuse("must be JSON text of an object")
    _check_depth(parsed)
    return value


Arguments = Annotated[str, BeforeValidator(_arguments, json_schema_input_type=str | dict[str, Any])]
