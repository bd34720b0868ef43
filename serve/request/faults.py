"""What pydantic finds wrong with a request, in words that name the field."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from serve.errors import ApiError, Fault, field_name

MODEL_MISSING = "You must specify a model to call"
MESSAGES_EMPTY = "Messages array cannot be empty"

MAX_ECHO = 60
NOT_AN_OBJECT = {"model_type", "model_attributes_type", "dict_type"}


def invalid_request(errors: Sequence[ErrorDetails]) -> ApiError:
    """The answer to a request body in which pydantic found `errors`; the first one is named."""
    faults = [_fault(error) for error in errors]
    param = field_name(faults[0].path)
    others = [fault.message for fault in faults[1:] if field_name(fault.path) != param]
    message = "; ".join([faults[0].message, *others])
    return ApiError(400, "invalid_params", message, param=param or None, faults=faults)


def _fault(error: ErrorDetails) -> Fault:
    context: Mapping[str, Any] = error.get("ctx", {})
    path = _path(error["loc"])
    kind = error["type"]
    if kind == "refused":
        path = (*path, *context["path"])
    elif kind in ("union_tag_not_found", "union_tag_invalid"):
        return _kind_fault(error, path)
    name = field_name(path)
    if not path:
        return Fault((), "the body must be a JSON object", kind)
    if name == "model" and kind in ("missing", "string_too_short"):
        return Fault(path, MODEL_MISSING, kind)
    if name == "messages" and kind == "too_short":
        return Fault(path, MESSAGES_EMPTY, kind)
    message = "must be an object" if kind in NOT_AN_OBJECT else error["msg"]
    return Fault(path, f"{name}: {message}{_echo(error)}", kind)


def _kind_fault(error: ErrorDetails, path: tuple[str | int, ...]) -> Fault:
    """An element whose `role` or `type` is missing or unknown."""
    context: Mapping[str, Any] = error.get("ctx", {})
    field = str(context["discriminator"]).strip("'")
    path = (*path, field)
    if error["type"] == "union_tag_not_found":
        return Fault(path, f"{field_name(path)}: Field required", "missing")
    tag = str(context["tag"])[:MAX_ECHO]
    message = f"{field_name(path)}: must be one of {context['expected_tags']}, not '{tag}'"
    return Fault(path, message, "literal_error")


def _path(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The place of an error in the body.

    Where an element is of one of several kinds, pydantic puts the kind behind its index.
    """
    kinds = {1} if loc[:1] == ("tool_choice",) else set()
    if loc[:1] == ("messages",):
        kinds = {2, 5} if loc[2:4] == ("user", "content") else {2}
    return tuple(part for index, part in enumerate(loc) if index not in kinds)


def _echo(error: ErrorDetails) -> str:
    """What stood there instead of one of a few values, where it is short."""
    told = error["input"]
    if error["type"] != "literal_error" or isinstance(told, dict | list):
        return ""
    return f", not {told!r}" if len(str(told)) <= MAX_ECHO else ""
