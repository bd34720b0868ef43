"""What other hosts' error answers amount to here, in the shapes that OpenAI, Mistral, Oxen, vLLM,
llama.cpp and Tunery itself send.
"""

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from data.conversation import ROLES
from serve.engine import (
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestRefused,
)

Json = dict[str, Any]

REQUEST_FAULTS = frozenset({400, 404, 405, 409, 413, 415, 422, 501})
"""Statuses by which hosts refuse a request; 501 is llama.cpp's for what it was built without."""
KEY_FAULTS = frozenset({401, 402, 403})
OVERLOAD = 429
MAX_MESSAGE_CHARACTERS = 500
DEFAULT_RETRY_S = 5.0
MAX_RETRY_S = 3600.0
CONTEXT_CODE = "context_length_exceeded"
PROMPT_PARAMETERS = frozenset({"input_tokens", "input_text"})
"""What vLLM names as the field at fault where a prompt is too long: no field of a request."""
PARTS_OF_A_BODY = frozenset({"body", "query", "header"})
CONTEXT_FAULTS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        # Tunery
        r"prompt has (?P<prompt>\d+) tokens.*context holds (?P<context>\d+) tokens",
        # llama.cpp
        r"request \((?P<prompt>\d+) tokens\) exceeds .* context size \((?P<context>\d+) tokens\)",
        # OpenAI, and vLLM of old
        r"context length is (?P<context>\d+) tokens.*\((?P<prompt>\d+) in the messages",
        r"context length is (?P<context>\d+) tokens.*resulted in (?P<prompt>\d+) tokens",
        # vLLM
        r"passed (?P<prompt>\d+) input tokens.*context length is only (?P<context>\d+) tokens",
        r"context length is (?P<context>\d+) tokens.* (has|contains) (?P<prompt>\d+) input tokens",
        r"prompt \(length (?P<prompt>\d+)\) is longer than .* length of (?P<context>\d+)",
        # Mistral
        r"contains (?P<prompt>\d+) tokens.*too large for model with (?P<context>\d+) maximum",
    )
)


class ContextCounts(NamedTuple):
    """What a host says about a request that is too long; both in tokens."""

    prompt_tokens: int
    context_length: int


class HostError(NamedTuple):
    """A host's error, whatever shape it had. code: a name or a number, as the host gives it."""

    message: str
    field: str | None = None
    type: str = ""
    code: str | int | None = None
    counts: ContextCounts | None = None


class RefusedByHost(RequestRefused):
    """A host's refusal. too_long: prompt and answer together do not fit its context."""

    def __init__(self, message: str, *, field: str | None, too_long: bool) -> None:
        self.too_long = too_long
        super().__init__(message, field=field)


def find_error(body: Json) -> HostError | None:
    """The error that a body or a chunk of a stream holds, if it holds one."""
    error = body.get("error")
    if isinstance(error, dict):
        return _read(error)
    if error:
        return HostError(str(error))
    if body.get("object") == "error" or (body.get("message") and "choices" not in body):
        message = body.get("message")
        return _read({**body, **message} if isinstance(message, dict) else body)
    return _read(body) if body.get("detail") else None


def read_error(
    error: HostError, *, status: int | None, begun: bool = False, retry_after_s: float | None = None
) -> Exception:
    """What the error amounts to, as `Engine.complete` raises it.

    status: of the response, or None for an error within a stream; begun: whether the answer has
    begun, from when on nothing is the request's fault any more.
    """
    if status is None and isinstance(error.code, int):
        status = error.code
    wait_s = DEFAULT_RETRY_S if retry_after_s is None else retry_after_s
    if status in KEY_FAULTS:
        return EngineError(
            f"the host does not let this server in (status {status}): it refuses the key, or the "
            "account behind it"
        )
    if status == OVERLOAD:
        return Overloaded("the host has too many requests already", retry_after_s=wait_s)
    if status in REQUEST_FAULTS and not begun:
        return _refusal(error)
    said = f": {error.message}" if error.message else ""
    if status is None:
        return EngineError(f"the engine failed{said}")
    return EngineUnavailable(f"the engine failed with status {status}{said}", retry_after_s=wait_s)


def _refusal(error: HostError) -> RequestRefused:
    counts = error.counts
    # Where the prompt fits, only the answer that was asked for is too long.
    if counts is not None and counts.prompt_tokens >= counts.context_length:
        return ContextExceeded(
            prompt_tokens=counts.prompt_tokens, context_length=counts.context_length
        )
    message = error.message or "the engine refuses the request"
    if counts is not None:
        return RefusedByHost(message, field="max_tokens", too_long=True)
    if error.code == CONTEXT_CODE or error.field in PROMPT_PARAMETERS:
        return RefusedByHost(message, field="messages", too_long=True)
    return RefusedByHost(message, field=error.field, too_long=False)


def read_retry_after(value: str | None) -> float | None:
    """Seconds out of a `Retry-After` header, which tells seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_S)


def _read(error: Json) -> HostError:
    message, field = _first_text(error, ("message", "detail", "title")), error.get("param")
    faults = error.get("detail")
    if isinstance(faults, list) and faults:
        message, field = _read_faults(faults)
    code = error.get("code")
    return HostError(
        message=_shorten(message),
        field=field if isinstance(field, str) and field else None,
        type=str(error.get("type") or ""),
        code=code if isinstance(code, str | int) else None,
        counts=_find_counts(error, message),
    )


def _read_faults(faults: list[Any]) -> tuple[str, str | None]:
    """The 422 of pydantic's servers, Mistral's among them: `[{"loc": […], "msg": …}]`."""
    told = [fault for fault in faults if isinstance(fault, dict)]
    message = "; ".join(str(fault.get("msg") or "") for fault in told)
    place = told[0].get("loc") if told else None
    if not isinstance(place, list):
        return message, None
    names = place[1:] if place and place[0] in PARTS_OF_A_BODY else place
    # Behind an index stands the kind of message that was tried, which is no field.
    names = [name for name in names if name not in ROLES]
    path = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names)
    return message, path.removeprefix(".") or None


def _first_text(error: Json, names: tuple[str, ...]) -> str:
    return next((error[name] for name in names if isinstance(error.get(name), str)), "")


def _find_counts(error: Json, message: str) -> ContextCounts | None:
    prompt, context = error.get("n_prompt_tokens"), error.get("n_ctx")
    if isinstance(prompt, int) and isinstance(context, int):  # llama.cpp's own fields
        return ContextCounts(prompt, context)
    found = (pattern.search(message) for pattern in CONTEXT_FAULTS)
    match = next((match for match in found if match), None)
    if match is None:
        return None
    return ContextCounts(int(match["prompt"]), int(match["context"]))


def _shorten(message: str) -> str:
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    return message[:MAX_MESSAGE_CHARACTERS] + "…"
