"""Which JSON schemas llama.cpp follows to the letter.

Its grammars leave out without a word what they cannot express. A client that asks for a schema
relies on it, so everything outside this subset is refused by name instead.
"""

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32
"""Nested schemas; deeper ones are refused before they exhaust anything."""

ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$comment"}
DEFINITIONS = {"$defs", "definitions"}
ALTERNATIVES = ("$ref", "anyOf", "enum", "const", "type")
"""A schema says what it allows with exactly one of these (`type` may stand beside `enum`)."""

FORMATS = ("date", "time", "date-time", "uuid")
KEYWORDS_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}


def check_schema(schema: object, path: str = "schema", depth: int = 0) -> None:
    """Raise `ValueError`, naming path and keyword, unless answers can be held to `schema`."""
    if not isinstance(schema, Mapping):
        raise ValueError(f"{path} must be an object")
    if depth > MAX_DEPTH:
        raise ValueError(f"{path} is nested more than {MAX_DEPTH} deep")
    for name in DEFINITIONS & schema.keys():
        _check_each(schema[name], f"{path}.{name}", depth)
    keywords = schema.keys() - ANNOTATIONS - DEFINITIONS
    chosen = [name for name in ALTERNATIVES if name in keywords]
    if "enum" in chosen and "type" in chosen:
        chosen.remove("type")
        keywords = keywords - {"type"}
    if unknown := keywords - set(ALTERNATIVES) - set[str]().union(*KEYWORDS_OF_TYPE.values()):
        raise ValueError(f"{path}: {_names(unknown)} is not supported")
    if not chosen:
        if keywords:
            raise ValueError(f"{path}: {_names(keywords)} needs a `type` beside it")
        return
    allowed = {chosen[0]}
    if chosen[0] == "type":
        allowed |= _check_type(schema, path, depth)
    if others := keywords - allowed:
        raise ValueError(f"{path}: {_names(others)} is not supported beside `{chosen[0]}`")
    if chosen[0] == "anyOf":
        _check_list(schema["anyOf"], f"{path}.anyOf", depth)


def _check_type(schema: Mapping[str, Any], path: str, depth: int) -> set[str]:
    """The keywords that the schema's types allow, once those that hold schemas are checked."""
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    unknown = [name for name in types if name not in KEYWORDS_OF_TYPE]
    if unknown or not types:
        raise ValueError(f"{path}.type must be one of {', '.join(KEYWORDS_OF_TYPE)}")
    properties = schema.get("properties", {})
    _check_each(properties, f"{path}.properties", depth)
    if missing := [name for name in schema.get("required", []) if name not in properties]:
        raise ValueError(f"{path}.required names {missing[0]!r}, which is not in `properties`")
    if isinstance(schema.get("additionalProperties"), Mapping):
        check_schema(schema["additionalProperties"], f"{path}.additionalProperties", depth + 1)
    if "items" in schema:
        check_schema(schema["items"], f"{path}.items", depth + 1)
    elif bounds := {"minItems", "maxItems"} & schema.keys():
        raise ValueError(f"{path}: {_names(bounds)} needs `items` beside it")
    if "format" in schema and schema["format"] not in FORMATS:
        raise ValueError(f"{path}.format must be one of {', '.join(FORMATS)}")
    if "format" in schema and {"minLength", "maxLength"} & schema.keys():
        raise ValueError(f"{path}: `format` is not supported beside `minLength` or `maxLength`")
    return set[str]().union(*(KEYWORDS_OF_TYPE[name] for name in types))


def _check_each(schemas: object, path: str, depth: int) -> None:
    if not isinstance(schemas, Mapping):
        raise ValueError(f"{path} must be an object")
    for name, schema in schemas.items():
        check_schema(schema, f"{path}.{name}", depth + 1)


def _check_list(schemas: object, path: str, depth: int) -> None:
    if not isinstance(schemas, list) or not schemas:
        raise ValueError(f"{path} must be a list of schemas")
    for index, schema in enumerate(schemas):
        check_schema(schema, f"{path}[{index}]", depth + 1)


def _names(keywords: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(keywords))
