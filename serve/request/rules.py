"""Rules between fields, as JSON Schema says them."""

from typing import Any

Schema = dict[str, Any]


def given(field: str, schema: Schema | None = None) -> Schema:
    """`field` is there, is not null, and fits `schema`."""
    value: Schema = {"not": {"type": "null"}}
    return {"required": [field], "properties": {field: value | (schema or {})}}


def not_both(first: str, second: str) -> Schema:
    """At most one of two fields is given."""
    return {"not": {"allOf": [given(first), given(second)]}}


def needs(field: str, other: Schema) -> Schema:
    """Where `field` is given, `other` holds."""
    return {"if": given(field), "then": other}
