"""One line of JSON in the log for each request, and its id on everything else that is logged.

What a client sends in headers, query and body is never logged, and neither are answers.
"""

import contextvars
import logging
import re
import sys
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TextIO

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.json_lines import JsonLines, LineHandler

logger = logging.getLogger(__name__)

Noted = str | int | float | bool | None

CLIENT_GONE = 499
"""What proxies write where the client went away; nobody is ever sent it."""

PROBES = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Asked every few seconds by machines, and logged at level DEBUG only."""

MAX_NOTED_CHARS = 200
MAX_PATH_CHARS = 500

SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")

QUIET_LOGGERS = ("httpx", "httpcore", "aiohttp.access", "uvicorn.access")
"""They log addresses with their queries."""

LOGGED_FOR = "_logged_for_request"


@dataclass(kw_only=True)
class _Request:
    """What is known of the request that the running task works for."""

    id: str
    started: float
    noted: dict[str, Noted] = field(default_factory=dict)


_current: contextvars.ContextVar[_Request | None] = contextvars.ContextVar("request", default=None)


def request_id() -> str:
    """The id of the request that this task works for; empty outside of one."""
    request = _current.get()
    return request.id if request is not None else ""


def note(**fields: Noted) -> None:
    """Add to the request's line in the log; without effect outside of a request.

    Never a key, a prompt or an answer. Texts are cut to `MAX_NOTED_CHARS` characters.
    """
    request = _current.get()
    if request is not None:
        for name, value in fields.items():
            request.noted[name] = value[:MAX_NOTED_CHARS] if isinstance(value, str) else value


def note_first_token() -> None:
    """Note that the first piece of the answer is there now, the first time it is called."""
    request = _current.get()
    if request is not None and "first_token_ms" not in request.noted:
        request.noted["first_token_ms"] = _milliseconds_since(request.started)


def detach() -> None:
    """Let this context keep the request's id, but note nothing more about the request."""
    request = _current.get()
    if request is not None:
        _current.set(replace(request, noted={}))


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)


class RequestLog:
    """ASGI middleware that logs each request as it ends, and passes everything on as it comes.

    The id is the client's `X-Request-ID` where that is at most 100 letters, digits and `._:-`, else
    a fresh one; the answer carries it. A client that went away before the end of its answer shows
    as status 499; a stream that broke shows its error beside the status that was sent. An exception
    that nobody turned into an answer is logged here unless it has been already: wrapped round the
    whole application, its handling of errors included, its 500 carries the id too.
    """

    def __init__(self, app: ASGIApp, *, probes: Collection[str] = PROBES) -> None:
        self._app = app
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of connections are passed on unseen."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(id=_id_of(scope["headers"]), started=time.perf_counter())
        # Never reset: what the server logs after us, in this request's task, is about it too.
        _current.set(request)
        exchange = _Exchange(request.id, receive, send)
        error: BaseException | None = None
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as raised:
            error = raised
            answered = exchange.complete and isinstance(raised, Exception)
            if not (answered or exchange.is_farewell(raised)):
                raise
        finally:
            self._log(scope, request, exchange, error)

    def _log(
        self, scope: Scope, request: _Request, exchange: "_Exchange", error: BaseException | None
    ) -> None:
        gone = exchange.gone or exchange.status == CLIENT_GONE
        status = CLIENT_GONE if gone else exchange.status or 500
        fault = error if isinstance(error, Exception) and not exchange.is_farewell(error) else None
        level = logging.INFO if status < 500 else logging.WARNING
        if scope["path"] in self._probes:
            level = logging.DEBUG
        if fault is not None:
            level = logging.ERROR
        if not logger.isEnabledFor(level):
            return
        told: dict[str, Noted] = {
            "method": scope["method"],
            "path": scope["path"][:MAX_PATH_CHARS],
            "status": status,
            **request.noted,
            "total_ms": _milliseconds_since(request.started),
        }
        if error is not None and not gone:
            told["error"] = type(error).__name__
        exc_info = (type(fault), fault, fault.__traceback__) if fault else None
        logger.log(level, "request", extra={"told": told}, exc_info=exc_info)


def _id_of(headers: Collection[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value.decode("ascii")
    return uuid.uuid4().hex


class _Exchange:
    """Watches what goes to and fro. status: 0 until an answer has begun."""

    def __init__(self, id: str, receive: Receive, send: Send) -> None:
        self._id = id
        self._receive = receive
        self._send = send
        self.status = 0
        self.complete = False
        self.gone = False

    async def receive(self) -> Message:
        """What the client sends next."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on a piece of the answer, at once."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._id.encode("ascii"))]
            message = {**message, "headers": headers}
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    def is_farewell(self, error: BaseException) -> bool:
        """Whether an exception says no more than that the client has gone."""
        return isinstance(error, ClientDisconnect) or isinstance(error.__cause__, ClientDisconnect)


class _SaidOnce(logging.Filter):
    """Lets the frames of an exception within a request pass once, whoever logs it first.

    A handler of errors may, this module does, and servers do so once more after it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        request = _current.get()
        error = record.exc_info[1] if record.exc_info else None
        if request is None or error is None:
            return True
        # The mark is on the exception: held here, it would keep the request's frames alive.
        marks = vars(error)
        if marks.get(LOGGED_FOR) != request.id:
            marks[LOGGED_FOR] = request.id
            return True
        record.exc_info = None
        return record.name == __name__


def configure_logging(*, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Have everything that is logged in this process go to stderr (or `stream`) as JSON lines.

    Takes the place of what was configured before. Records are written where they are logged, so
    that none is lost when the process dies.
    """
    handler = LineHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines(request_id))
    handler.addFilter(_SaidOnce())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
