"""Which JSON schemas answers are held to.

llama.cpp answers freely, without a word, when it meets a schema that it cannot follow. A client
that asks for a schema relies on it, so everything outside a subset that is known to be followed is
refused by name instead.
"""

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32
"""Nested schemas; deeper ones are refused before they exhaust anything."""

ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$comment"}
ALTERNATIVES = ("$ref", "anyOf", "enum", "const", "type")
"""A schema says what it allows with exactly one of these (`type` may stand beside `enum`)."""

FORMATS = ("date", "time", "date-time", "uuid")
SIZES = (("minItems", "maxItems"), ("minLength", "maxLength"))
BOUNDS = (("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"))
NUMBER_KEYWORDS = {keyword for pair in BOUNDS for keyword in pair}
KEYWORDS_OF_TYPE: dict[str, set[str]] = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "format"},
    "integer": NUMBER_KEYWORDS,
    "number": NUMBER_KEYWORDS,
    "boolean": set(),
    "null": set(),
}
KEYWORDS = set(ALTERNATIVES).union(*KEYWORDS_OF_TYPE.values())


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise `ValueError`, naming place and keyword, unless answers can be held to `schema`.

    References point to definitions at the top of the schema.
    """
    definitions = schema.get("$defs", {})
    _expect(isinstance(definitions, Mapping), "schema.$defs must be an object")
    checker = _Checker({f"#/$defs/{name}" for name in definitions})
    for name, definition in definitions.items():
        checker.check(definition, f"schema.$defs.{name}", 1)
    checker.check({name: schema[name] for name in schema if name != "$defs"}, "schema", 0)


class _Checker:
    """Checks schemas that may refer to `references`."""

    def __init__(self, references: set[str]) -> None:
        self._references = references

    def check(self, schema: object, path: str, depth: int) -> None:
        _expect(isinstance(schema, Mapping), f"{path} must be an object")
        assert isinstance(schema, Mapping)
        _expect(depth <= MAX_DEPTH, f"{path} is nested more than {MAX_DEPTH} deep")
        keywords = schema.keys() - ANNOTATIONS
        unknown = keywords - KEYWORDS
        _expect(not unknown, f"{path}: {_names(unknown)} is not supported")
        if "enum" in keywords:
            keywords = keywords - {"type"}
        chosen = next((name for name in ALTERNATIVES if name in keywords), None)
        if chosen is None:
            _expect(not keywords, f"{path}: {_names(keywords)} needs a `type` beside it")
            return
        allowed = {chosen} | (_keywords_of(schema["type"], path) if chosen == "type" else set())
        others = keywords - allowed
        _expect(not others, f"{path}: {_names(others)} is not supported beside `{chosen}`")
        self._check_inside(schema, path, depth)

    def _check_inside(self, schema: Mapping[str, Any], path: str, depth: int) -> None:
        if "$ref" in schema:
            known = schema["$ref"] in self._references
            _expect(known, f"{path}.$ref must name one of `#/$defs/…`")
        if "enum" in schema:
            _expect(_is_filled_list(schema["enum"]), f"{path}.enum must be a list of values")
        if "anyOf" in schema:
            _expect(_is_filled_list(schema["anyOf"]), f"{path}.anyOf must be a list of schemas")
            for index, alternative in enumerate(schema["anyOf"]):
                self.check(alternative, f"{path}.anyOf[{index}]", depth + 1)
        if "format" in schema:
            _expect(schema["format"] in FORMATS, f"{path}.format must be one of {FORMATS}")
            sizes = schema.keys() & {"minLength", "maxLength"}
            _expect(not sizes, f"{path}: {_names(sizes)} is not supported beside `format`")
        if "items" in schema:
            self.check(schema["items"], f"{path}.items", depth + 1)
        _check_ranges(schema, path)
        self._check_properties(schema, path, depth)

    def _check_properties(self, schema: Mapping[str, Any], path: str, depth: int) -> None:
        properties = schema.get("properties", {})
        _expect(isinstance(properties, Mapping), f"{path}.properties must be an object")
        for name, value in properties.items():
            self.check(value, f"{path}.properties.{name}", depth + 1)
        required = schema.get("required", [])
        _expect(isinstance(required, list), f"{path}.required must be a list of names")
        strangers = [name for name in required if name not in properties]
        _expect(not strangers, f"{path}.required names {strangers[:1]}, not in `properties`")
        additional = schema.get("additionalProperties", True)
        if not isinstance(additional, bool):
            self.check(additional, f"{path}.additionalProperties", depth + 1)


def _keywords_of(types: object, path: str) -> set[str]:
    """The keywords that may stand beside one type, or a list of them."""
    names: list[Any] = types if isinstance(types, list) else [types]
    known = bool(names) and all(str(name) in KEYWORDS_OF_TYPE for name in names)
    _expect(known, f"{path}.type must be one of {', '.join(KEYWORDS_OF_TYPE)}")
    return set[str]().union(*(KEYWORDS_OF_TYPE[name] for name in names))


def _check_ranges(schema: Mapping[str, Any], path: str) -> None:
    """Sizes are counts and bounds are numbers, the lower one not above the upper one."""
    for pairs, kind in ((SIZES, int), (BOUNDS, int | float)):
        for lower, upper in pairs:
            for keyword in {lower, upper} & schema.keys():
                value = schema[keyword]
                fits = isinstance(value, kind) and not isinstance(value, bool)
                _expect(fits and (pairs is BOUNDS or value >= 0), f"{path}.{keyword} is no number")
            if lower in schema and upper in schema:
                _expect(schema[lower] <= schema[upper], f"{path}.{lower} is above {upper}")


def _is_filled_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _names(keywords: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(keywords))
