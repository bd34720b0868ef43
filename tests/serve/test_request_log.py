"""The log of a real server: a line a request, nothing secret, nothing that breaks a line."""

import asyncio
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access.key_file import make_key
from serve.request_log import (
    QUIET_LOGGERS,
    RequestLog,
    configure_logging,
    detach,
    note,
    note_first_token,
    request_id,
)

KEY = "Zq5b9f2c1de8a74kQ"
"""Searched for in everything that was logged; of no form that would be masked."""

log = logging.getLogger("tests.app")
WORDS = ["own\nwords\x1b[31m\x9b", "child", "there is none", "alone"]
may_go_on = threading.Event()


async def fine(request: Request) -> Response:
    note(model="m", client="team-a", prompt_tokens=3, long="x" * 1000)
    note_first_token()
    note(target="variant", stream=False, finish_reason="stop")
    return PlainTextResponse(request_id())


async def quoting(request: Request) -> Response:
    """Fails in words that quote what was sent, as parsers do."""
    body = await request.body()
    try:
        raise KeyError(body.decode())
    except KeyError as error:
        raise ValueError(f"{request.url} {dict(request.headers)}") from error


async def streaming(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        while not may_go_on.is_set():
            await asyncio.sleep(0.005)
        yield b"second"

    return StreamingResponse(pieces())


async def breaking(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError(f"broken at {KEY}")

    return StreamingResponse(pieces())


async def hanging(request: Request) -> Response:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


class Leaving(Response):
    """Finds its client gone midway: Starlette makes another error of that."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await hanging(Request(scope, receive))


async def leaving(request: Request) -> Response:
    return Leaving()


async def talking(request: Request) -> Response:
    """Logs from its own task, from one that it starts, and from one that stands by itself."""

    async def say(what: str, *, alone: bool = False) -> None:
        if alone:
            detach()
            note(target="the shadow's")
        log.warning("%s", what)

    log.info(WORDS[0])
    await asyncio.gather(asyncio.create_task(say("child")))
    log.exception("there is none")
    note(target="mine")
    await asyncio.gather(asyncio.create_task(say("alone", alone=True)))
    return PlainTextResponse("")


async def client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def unexpected(request: Request, error: Exception) -> Response:
    return PlainTextResponse("the server failed", 500)


async def telling(request: Request, error: Exception) -> Response:
    log.error("it failed", exc_info=error)
    return await unexpected(request, error)


ROUTES = [
    Route("/fine", fine, methods=["GET", "POST"]),
    Route("/quoting", quoting, methods=["POST"]),
    Route("/streaming", streaming),
    Route("/breaking", breaking),
    Route("/hanging", hanging, methods=["POST"]),
    Route("/leaving", leaving),
    Route("/talking", talking),
    Route("/health", fine),
    Route("/metrics", breaking),
    Route("/{rest:path}", fine, methods=["GET", "POST"]),
]
HANDLERS = {ClientDisconnect: client_gone, Exception: unexpected}


def outside() -> ASGIApp:
    return RequestLog(Starlette(routes=ROUTES, exception_handlers=HANDLERS))


def inside() -> ASGIApp:
    middleware = [Middleware(RequestLog)]
    return Starlette(routes=ROUTES, exception_handlers=HANDLERS, middleware=middleware)


def twice() -> ASGIApp:
    return RequestLog(Starlette(routes=ROUTES, exception_handlers={Exception: telling}))


class Log(io.StringIO):
    """All that was logged. num_before: lines there when the test began."""

    num_before = 0

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def requests(self, num: int) -> list[dict[str, Any]]:
        """The lines of requests, once there are so many: the last is written after its answer."""
        deadline = time.monotonic() + 5
        while True:
            found = [line for line in self.lines() if line["message"] == "request"]
            if len(found) >= num or time.monotonic() > deadline:
                assert len(found) == num, self.getvalue()
                return found
            time.sleep(0.01)


@pytest.fixture
def logged() -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIET_LOGGERS}
    stream = Log()
    configure_logging(stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """The address of a real server of the application."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def url(logged: Log) -> Iterator[str]:
    may_go_on.clear()
    with running(outside()) as address:
        httpx.get(f"{address}/health")  # so that the server has said all about its start
        logged.num_before = len(logged.lines())
        yield address


def test_a_request_leaves_one_line_with_what_was_noted(url: str, logged: Log) -> None:
    httpx.get(f"{url}/fine?verbose=1")
    [line] = logged.requests(1)
    assert list(line)[:5] == ["time", "level", "logger", "request_id", "message"]
    assert line["time"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(line["time"])
    assert timedelta(0) <= age < timedelta(seconds=10)
    assert line["level"] == "info"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/fine", 200)
    assert (line["model"], line["target"], line["client"]) == ("m", "variant", "team-a")
    assert (line["stream"], line["prompt_tokens"], line["finish_reason"]) == (False, 3, "stop")
    assert 0 < line["first_token_ms"] <= line["total_ms"] < 1000
    assert line["long"] == "x" * 200
    assert "verbose" not in logged.getvalue()


def test_a_sane_id_is_taken_and_answered(url: str, logged: Log) -> None:
    answer = httpx.get(f"{url}/fine", headers={"X-Request-ID": "req_1:a.b-2"})
    assert answer.headers["x-request-id"] == answer.text == "req_1:a.b-2"
    assert logged.requests(1)[0]["request_id"] == "req_1:a.b-2"


@pytest.mark.parametrize("sent", [b"", b"a b", b"x" * 101, b"-rf", b'"}', "ä".encode(), b"\x80"])
def test_an_id_that_is_not_sane_is_replaced(sent: bytes, url: str, logged: Log) -> None:
    answer = httpx.get(f"{url}/fine", headers={b"X-Request-ID": sent})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert logged.requests(1)[0]["request_id"] == answer.headers["x-request-id"]


def send_raw(url: str, data: bytes) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def test_no_secret_is_logged_wherever_it_was_sent(url: str, logged: Log) -> None:
    headers = {
        "Authorization": f"Bearer {KEY}",
        "X-API-Key": KEY,
        "Cookie": f"session={KEY}",
        "User-Agent": KEY,
        "Referer": f"https://x/{KEY}",
    }
    with httpx.Client(base_url=url, headers=headers, timeout=5) as client:
        for path in ("/fine", "/quoting"):
            client.post(f"{path}?api_key={KEY}", json={"api_key": KEY, "messages": [KEY]})
        for odd in (KEY, f"Bearer: {KEY}", f"bearer  {KEY}", f"Basic {KEY}="):
            client.get("/fine", headers={"Authorization": odd})
        client.get(f"/fine#{KEY}")
        client.get("/fine", headers={"X-Request-ID": f"{KEY} {KEY}"})
        with pytest.raises(httpx.HTTPError):
            client.get("/breaking")
    send_raw(url, f"GET /fine HTTP/1.1\r\nAuthorization {KEY}\r\n\r\n".encode())
    send_raw(url, f"{KEY}\r\n\r\n".encode())
    send_raw(url, f"POST /fine HTTP/1.1\r\nContent-Length: {KEY}\r\n\r\n".encode())
    send_raw(url, f"GET /fine HTTP/9.9\r\nX: {KEY}\r\n\r\n".encode())
    send_raw(url, f"GET http://{KEY}@host:{KEY}/fine HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    upgrade = f"Upgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: {KEY}\r\n"
    send_raw(url, f"GET /fine HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode())
    time.sleep(0.2)
    assert "Invalid HTTP request" in logged.getvalue(), "what the server itself says is there too"
    assert "ValueError" in logged.getvalue()
    assert KEY not in logged.getvalue()
    assert "5b9f2c1d" not in logged.getvalue()


@pytest.mark.parametrize("path", ["/a%0A{}%0D", "/%1B%5B31m", "/%C2%9B2J", "/%E2%80%A8", "/%7F%00"])
def test_no_character_in_a_path_leaves_its_line(path: str, url: str, logged: Log) -> None:
    httpx.get(url + path)
    [line] = logged.requests(1)
    assert len(logged.lines()) == logged.getvalue().count("\n") == logged.num_before + 1
    assert all(" " <= character <= "~" or character == "\n" for character in logged.getvalue())
    assert line["path"].startswith("/")


def test_a_long_path_is_cut(url: str, logged: Log) -> None:
    httpx.get(f"{url}/{'a' * 5000}")
    assert len(logged.requests(1)[0]["path"]) == 500


def test_probes_are_not_logged_unless_they_fail(url: str, logged: Log) -> None:
    httpx.get(f"{url}/health")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/metrics")
    httpx.get(f"{url}/fine")
    assert [line["path"] for line in logged.requests(2)] == ["/metrics", "/fine"]


def test_a_stream_is_passed_on_piece_by_piece(url: str, logged: Log) -> None:
    with httpx.stream("GET", f"{url}/streaming", timeout=5) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first", "while the second is not even made"
        assert not [line for line in logged.lines() if line["message"] == "request"]
        may_go_on.set()
        assert b"".join(pieces) == b"second"
    [line] = logged.requests(1)
    assert line["status"] == 200


def test_a_client_that_goes_away_is_499(url: str, logged: Log) -> None:
    with httpx.stream("GET", f"{url}/streaming", timeout=5) as answer:
        next(answer.iter_raw())
    [line] = logged.requests(1)
    assert (line["status"], line["level"]) == (499, "info")
    with httpx.stream("GET", f"{url}/leaving", timeout=5) as answer:
        next(answer.iter_raw())
    assert logged.requests(2)[1]["status"] == 499
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/hanging", timeout=0.2)
    line = logged.requests(3)[2]
    assert (line["status"], line["path"], line["level"]) == (499, "/hanging", "info")
    assert {"model", "error", "exc_info"}.isdisjoint(line)
    assert "Traceback" not in logged.getvalue() and "File" not in logged.getvalue()


@pytest.mark.parametrize("build", [outside, inside, twice])
def test_an_exception_is_told_once_with_its_frames(
    build: Callable[[], ASGIApp], logged: Log
) -> None:
    with running(build()) as url:
        answer = httpx.post(f"{url}/quoting", content=KEY)
    assert (answer.status_code, answer.text) == (500, "the server failed")
    [line] = logged.requests(1)
    assert (line["status"], line["level"], line["error"]) == (500, "error", "ValueError")
    [told] = [line["exc_info"] for line in logged.lines() if "exc_info" in line]
    assert told.index("KeyError") < told.index("ValueError")
    assert "in quoting" in told and __file__ in told
    assert logged.getvalue().count("in quoting") == 2, "cause and error, each once"
    assert KEY not in logged.getvalue()
    if build is outside:
        assert answer.headers["x-request-id"] == line["request_id"]


def test_a_stream_that_breaks_shows_its_error_once(url: str, logged: Log) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/breaking")
    [line] = logged.requests(1)
    assert (line["status"], line["error"], line["level"]) == (200, "RuntimeError", "error")
    time.sleep(0.05)
    assert [line["message"] for line in logged.lines() if "exc_info" in line] == ["request"]


def test_all_that_a_request_logs_has_its_id_and_keeps_to_its_line(url: str, logged: Log) -> None:
    httpx.get(f"{url}/talking", headers={"X-Request-ID": "r7"})
    [line] = logged.requests(1)
    assert line["target"] == "mine", "what stands by itself notes nothing"
    said = [one for one in logged.lines() if one["logger"] == "tests.app"]
    assert [one["message"] for one in said] == WORDS
    assert {one["request_id"] for one in said} == {"r7"}
    assert all(" " <= character <= "~" or character == "\n" for character in logged.getvalue())


def test_outside_of_requests_exceptions_keep_their_words(logged: Log) -> None:
    note(model="nobody's")
    note_first_token()
    detach()
    assert request_id() == ""
    try:
        raise ValueError("the port is taken")
    except ValueError:
        log.exception("cannot start")
    [line] = logged.lines()
    assert line["exc_info"].endswith("ValueError: the port is taken")
    assert "request_id" not in line


def test_a_record_that_cannot_be_put_into_words_does_not_spill_its_arguments(
    logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()  # pytest's own handlers would raise
    monkeypatch.setattr(root, "handlers", [h for h in root.handlers if h.formatter is not None][:1])
    log.info("%d tokens", KEY)
    log.info("%s", "\ud800")
    first, second = logged.lines()
    assert first["message"] == "a record was not logged" and "test_request_log.py" in first["where"]
    assert second["message"] == "\ud800"


@pytest.mark.parametrize(
    "text", ["{}", "/v1/models/{}/x", "Bearer {}", "a\n{}", "key={}&x=1", "\u00e4{}", "({})"]
)
@pytest.mark.parametrize("key", [make_key(), "sk-proj-Abc_123-def-456789"], ids=["ours", "hosted"])
def test_what_looks_like_a_key_is_masked_wherever_it_stands(
    text: str, key: str, logged: Log
) -> None:
    log.warning("%s", text.format(key), extra={"told": {"model": text.format(key)}})
    [line] = logged.lines()
    assert key[8:] not in logged.getvalue()
    assert line["message"].count("***") == line["model"].count("***") == 1


@pytest.mark.parametrize(
    "text",
    ["task-force-one-two-three-four", "risk-averse-model-24B-Instruct-2503", "bearer of news"],
)
def test_what_does_not_look_like_a_key_stays(text: str, logged: Log) -> None:
    log.warning(text)
    assert logged.lines()[0]["message"] == text


def test_errors_within_groups_are_told(logged: Log) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    async def fails() -> None:
        raise KeyError(KEY)

    async def nothing() -> Message:
        return {"type": "http.request"}

    async def nowhere(message: Message) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ExceptionGroup):
        asyncio.run(RequestLog(failing)(scope, nothing, nowhere))
    [line] = logged.requests(1)
    assert "in fails" in line["exc_info"] and KEY not in logged.getvalue()


def test_other_kinds_of_connections_pass_through(logged: Log) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    asyncio.run(RequestLog(app)({"type": "lifespan"}, receive, send))
    assert seen == [("lifespan", receive, send)]
    assert logged.getvalue() == ""
