"""The errors that clients are answered with, in bodies that they understand.

The hosted interface puts `title` and `detail` under `error` and `status` beside it; OpenAI's client
reads `message`, `type`, `param` and `code` there. One body carries both. Mistral's clients get
theirs: flat, or the list of faults that goes with a 422.
"""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serve.engine import (
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestRefused,
)

logger = logging.getLogger(__name__)

ErrorType = Literal[
    "invalid_params",
    "unauthenticated",
    "resource_not_found",
    "rate_limit_exceeded",
    "service_unavailable",
    "unknown_error",
]

TITLES: dict[ErrorType, str] = {
    "invalid_params": "Invalid request",
    "unauthenticated": "Not authenticated",
    "resource_not_found": "Not found",
    "rate_limit_exceeded": "Too many requests",
    "service_unavailable": "Not available",
    "unknown_error": "Server error",
}
MISTRAL_TYPES: dict[ErrorType, str] = {
    "invalid_params": "invalid_request_error",
    "unauthenticated": "authentication_error",
    "resource_not_found": "invalid_request_error",
    "rate_limit_exceeded": "rate_limited",
    "service_unavailable": "service_unavailable",
    "unknown_error": "internal_server_error",
}
CONTEXT_EXCEEDED = "context_length_exceeded"
MODEL_NOT_FOUND = "model_not_found"
MISTRAL_CODES = {MODEL_NOT_FOUND: "unknown_model"}

MAX_NAME = 256
"""Characters of a client's own word that an error repeats."""


@dataclass(frozen=True)
class Fault:
    """Something wrong with one field. path: names and indices that lead to it; type: pydantic's."""

    path: tuple[str | int, ...]
    message: str
    type: str


class ApiError(Exception):
    """A request that is answered with an error.

    status: of the HTTP answer; param: the field at fault, as a path such as `messages[0].role`;
    code: OpenAI's finer name for the error, where it has one; retry_after_s: seconds after which to
    try again; faults: of all fields, where several are known.
    """

    def __init__(
        self,
        status: int,
        type: ErrorType,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.status = status
        self.type = type
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.faults = tuple(faults)
        super().__init__(message)

    def headers(self) -> dict[str, str]:
        """Headers that go with the answer."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

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

    @property
    def mistral_status(self) -> int:
        """Status of the answer where Mistral's clients call: 422 for faults of fields."""
        return 422 if self._is_of_fields else self.status

    def mistral_body(self) -> dict[str, Any]:
        """The JSON body of the answer where Mistral's clients call."""
        if self._is_of_fields:
            faults = self.faults or (Fault(_parse_name(self.param), self.message, "value_error"),)
            return {
                "detail": [
                    {"loc": ["body", *fault.path], "msg": fault.message, "type": fault.type}
                    for fault in faults
                ]
            }
        return {
            "object": "error",
            "message": self.message,
            "type": MISTRAL_TYPES[self.type],
            "param": self.param,
            "code": MISTRAL_CODES.get(self.code or "", self.code),
        }

    @property
    def _is_of_fields(self) -> bool:
        named = bool(self.faults) or self.param is not None
        return self.status == 400 and named and self.code != CONTEXT_EXCEEDED


def field_name(path: Sequence[str | int]) -> str:
    """The path of a field as text: `messages[0].role`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}"[:MAX_NAME] for part in path]
    return "".join(parts).removeprefix(".")


def _parse_name(name: str | None) -> tuple[str | int, ...]:
    parts = re.findall(r"\[(\d+)\]|([^.\[\]]+)", name or "")
    return tuple(int(index) if index else word for index, word in parts)


def unauthenticated(message: str) -> ApiError:
    """401: no key, or none that is known."""
    return ApiError(401, "unauthenticated", message, code="invalid_api_key")


def model_not_found(name: str) -> ApiError:
    """404: nobody answers under this name."""
    told = f"Model not found: {name[:MAX_NAME]}"
    return ApiError(404, "resource_not_found", told, param="model", code=MODEL_NOT_FOUND)


def nothing_there(path: str) -> ApiError:
    """404: no such path."""
    return ApiError(404, "resource_not_found", f"there is nothing at {path[:MAX_NAME]}")


def body_too_large(max_bytes: int) -> ApiError:
    """413: the request's body is larger than `max_bytes`."""
    told = f"the body is larger than {max_bytes / 2**20:g} MiB"
    return ApiError(413, "invalid_params", told, code="request_too_large")


def not_json(content_type: str | None) -> ApiError:
    """415: the body is declared as something else."""
    given = f", not {content_type[:MAX_NAME]}" if content_type else ""
    told = f"send the body as `Content-Type: application/json`{given}"
    return ApiError(415, "invalid_params", told, code="unsupported_media_type")


def rate_limited(message: str, *, retry_after_s: float) -> ApiError:
    """429: too many requests, of one client or of all together."""
    return ApiError(
        429,
        "rate_limit_exceeded",
        message,
        code="rate_limit_exceeded",
        retry_after_s=retry_after_s,
    )


def unavailable(message: str, *, retry_after_s: float) -> ApiError:
    """503: loading, draining, or broken; the same request may work later."""
    return ApiError(503, "service_unavailable", message, retry_after_s=retry_after_s)


def from_engine(error: Exception) -> ApiError:
    """The answer to a request that an engine did not answer."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestRefused):
        code = CONTEXT_EXCEEDED if isinstance(error, ContextExceeded) else None
        return ApiError(400, "invalid_params", str(error), param=error.field, code=code)
    if isinstance(error, Overloaded):
        return rate_limited(str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, EngineUnavailable):
        return unavailable(str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, EngineError):
        logger.error("the engine failed: %s", error)
        return ApiError(500, "unknown_error", f"the engine failed: {error}")
    logger.error("the server failed to answer", exc_info=error)
    return ApiError(500, "unknown_error", "the server failed to answer")
