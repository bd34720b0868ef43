"""The error bodies that clients of the hosted interface and of OpenAI's both understand.

The hosted interface puts `title` and `detail` under `error` and `status` beside it; OpenAI's client
reads `message`, `type`, `param` and `code` there. One body carries both.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal

from pydantic_core import ErrorDetails

ErrorType = Literal["invalid_params", "resource_not_found", "unknown_error"]

TITLES: dict[ErrorType, str] = {
    "invalid_params": "Invalid request",
    "resource_not_found": "Not found",
    "unknown_error": "Server error",
}

MODEL_MISSING = "You must specify a model to call"
MESSAGES_EMPTY = "Messages array cannot be empty"


class ApiError(Exception):
    """A request that is answered with an error.

    status: of the HTTP answer; param: the field at fault, as a path such as `messages[0].role`;
    code: OpenAI's finer name for the error, where it has one.
    """

    def __init__(
        self,
        status: int,
        type: ErrorType,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        self.status = status
        self.type = type
        self.message = message
        self.param = param
        self.code = code
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer, or of the last event of a broken stream."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                "title": TITLES[self.type],
                "detail": self.message,
            },
            "status": "error",
            "status_message": self.type,
        }


def invalid_request(errors: Sequence[ErrorDetails], *, known_fields: Sequence[str]) -> ApiError:
    """What pydantic found wrong with a request body, the first fault named in `param`."""
    faults = [_fault(error, known_fields) for error in errors]
    param, message = faults[0]
    others = [other for name, other in faults[1:] if name != param]
    return ApiError(400, "invalid_params", "; ".join([message, *others]), param=param)


def _fault(error: ErrorDetails, known_fields: Sequence[str]) -> tuple[str | None, str]:
    """The field's path and a sentence about it, for one of pydantic's errors."""
    path = error["loc"][1:]  # the first part says "body"
    if error["type"] == "conflict":
        path = (*path, error["ctx"]["field"])
    if error["type"] == "json_invalid":
        return None, f"the body is not valid JSON: {error['ctx']['error']} at character {path[0]}"
    if not path:
        return None, "the body must be a JSON object, sent as `Content-Type: application/json`"
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    if error["type"] == "missing" and name == "model":
        return name, MODEL_MISSING
    if error["type"] == "too_short" and name == "messages":
        return name, MESSAGES_EMPTY
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, known_fields, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        return name, f"{name}: this field is not supported{hint}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error" and len(repr(error["input"])) < 60:
        message += f", not {error['input']!r}"
    return name, f"{name}: {message}"
