"""Which parameters of tools llama.cpp can hold calls to.

Where it does not know a keyword (`pattern`s with groups, `multipleOf`, `not`, `if`), it lets more
through, and a call is what the model makes of the definition in its prompt. What is refused here it
would misread instead: it would force arguments that do not fit, in silence.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.conversation import ToolDefinition
from serve.answer_schema import BOUNDS, MAX_DEPTH, SIZES
from serve.engine import RequestRefused

OF_ANY_TYPE = ("anyOf", "oneOf", "allOf", "enum", "const", "not")
"""Beside `type: object` these make llama.cpp take any JSON for the arguments, or one value."""
SCHEMAS = ("items", "additionalProperties")
LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "items")
SCHEMAS_BY_NAME = ("properties", "$defs", "definitions")


def check_tools(tools: Sequence[ToolDefinition]) -> None:
    """Raise `RequestRefused` for parameters that llama.cpp would misread, naming the place."""
    for number, tool in enumerate(tools):
        parameters = tool["function"].get("parameters")
        if parameters:
            field = f"tools[{number}].function.parameters"
            _check_outermost(parameters, parameters, field)
            _check(parameters, field, 0)


def _check_outermost(schema: Any, root: Mapping[str, Any], field: str, depth: int = 0) -> None:  # noqa: ANN401 (JSON)
    """Arguments are an object."""
    reference = schema.get("$ref") if isinstance(schema, Mapping) else None
    if isinstance(reference, str) and depth < MAX_DEPTH:
        _check_outermost(_resolve(reference, root), root, field, depth + 1)
        return
    is_object = isinstance(schema, Mapping) and schema.get("type") == "object"
    _expect(is_object, field, "must be a schema of `type` object")
    used = [keyword for keyword in OF_ANY_TYPE if keyword in schema]
    _expect(not used, field, f"cannot have `{used[0] if used else ''}` beside `type` object")


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:  # noqa: ANN401 (JSON)
    """What a reference within the schema points to, None where it is nothing."""
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _check(schema: Any, field: str, depth: int) -> None:  # noqa: ANN401 (JSON)
    _expect(depth <= MAX_DEPTH, field, f"is nested more than {MAX_DEPTH} deep")
    if not isinstance(schema, Mapping):
        return  # a boolean, or what llama.cpp itself refuses
    _expect("allOf" not in schema, field, "cannot have `allOf`")
    for lower, upper in (*SIZES, *BOUNDS):
        numbers = [schema[name] for name in (lower, upper) if name in schema]
        plain = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
        _expect(plain, field, f"has a `{lower}` or `{upper}` that is no number")
        _expect(numbers == sorted(numbers), field, f"has a `{lower}` above its `{upper}`")
    for place, inner in _inner_schemas(schema):
        _check(inner, f"{field}.{place}", depth + 1)


def _inner_schemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword in SCHEMAS:
        if isinstance(schema.get(keyword), Mapping):
            yield keyword, schema[keyword]
    for keyword in LISTS_OF_SCHEMAS:
        if isinstance(schema.get(keyword), list):
            yield from ((f"{keyword}[{n}]", one) for n, one in enumerate(schema[keyword]))
    for keyword in SCHEMAS_BY_NAME:
        if isinstance(schema.get(keyword), Mapping):
            yield from ((f"{keyword}.{name}", one) for name, one in schema[keyword].items())


def _expect(condition: bool, field: str, otherwise: str) -> None:
    if not condition:
        raise RequestRefused(f"{field} {otherwise}", field=field)
