"""From the bytes that a client sends to an object of a known shape, or an error that says why."""

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from serve.errors import ApiError, body_too_large, not_json
from serve.request.faults import invalid_request

T = TypeVar("T", bound=BaseModel)

MAX_BRACKETS = 500_000
"""Also counted in texts, which is faster than to look closer: millions of arrays take seconds."""


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """The whole body of a request, which has to be declared as JSON (415 `ApiError`).

    Refused (413) as soon as it shows to be larger than `max_bytes`.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise not_json(kind)
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    parts: list[bytes] = []
    if size <= max_bytes:
        size = 0
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > max_bytes:
                break
    if size > max_bytes:
        raise body_too_large(max_bytes)
    return b"".join(parts)


def parse_body(model: type[T], body: bytes) -> T:
    """The object that `body` holds as JSON; anything that is wrong with it is a 400 `ApiError`."""
    if body.count(b"{") + body.count(b"[") > MAX_BRACKETS:
        raise ApiError(400, "invalid_params", "the body holds too many arrays and objects")
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "invalid_params", f"the body is not valid JSON: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False)) from error
