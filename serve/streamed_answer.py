"""A streamed answer on its way to one client: first word, silence, faults and an early end."""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.answers import DONE, AnswerStream, error_event
from serve.engine import EngineError, Events, RequestRefused
from serve.errors import ApiError, from_engine
from serve.request_log import note

logger = logging.getLogger(__name__)

KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx gathers the words
]


class StreamedAnswer(Response):
    """Server-sent events of an answer: role, pieces, reason, counts if asked for, `[DONE]`.

    Nothing is sent before the engine's first word, so that what is refused gets its own status;
    after keep_alive_s of silence a comment is sent, and from then on faults are events. target: who
    answers, once that is settled, else empty; on_error: makes the answer to a request that is
    refused before anything was sent; error_body: the last event of an answer that breaks off.
    """

    def __init__(
        self,
        events: Events,
        stream: AnswerStream,
        *,
        target: Callable[[], str],
        keep_alive_s: float,
        on_error: Callable[[ApiError], Response],
        error_body: Callable[[ApiError], dict[str, Any]],
    ) -> None:
        super().__init__()
        self._events = events
        self._target = target
        self._stream = stream
        self._keep_alive_s = keep_alive_s
        self._on_error = on_error
        self._error_body = error_body
        self._started = False
        self._last_sent = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, unless the client goes away before its end."""
        body = asyncio.ensure_future(self._send_answer(scope, receive, send))
        gone = asyncio.ensure_future(disconnection(receive))
        keep_alive = asyncio.ensure_future(self._keep_alive(send))
        try:
            await asyncio.wait({body, gone}, return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                body.result()
        finally:
            for task in (body, gone, keep_alive):
                task.cancel()
            await asyncio.gather(body, gone, keep_alive, return_exceptions=True)

    async def _send_answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._events) as events:
                opening = self._stream.opening()
                async for event in events:
                    if opening:
                        note(target=self._target())
                    if chunk := opening + self._stream.render(event):
                        await self._send(chunk, send)
                    opening = b""
                await self._send(DONE, send, last=True)
        except (EngineError, RequestRefused) as error:
            fault = from_engine(error)
            if self._started:
                logger.warning("a stream broke off: %s", fault.message)
                await self._send(error_event(self._error_body(fault)), send, last=True)
            else:
                await self._on_error(fault)(scope, receive, send)

    async def _send(self, content: bytes, send: Send, *, last: bool = False) -> None:
        async with self._one_at_a_time:
            if not self._started:
                self._started = True
                await send(self._start_message())
            await send({"type": "http.response.body", "body": content, "more_body": not last})
        self._last_sent = asyncio.get_running_loop().time()

    def _start_message(self) -> MutableMapping[str, Any]:
        target = self._target()
        headers = [*HEADERS, (b"x-tunery-target", target.encode())] if target else HEADERS
        return {"type": "http.response.start", "status": 200, "headers": headers}

    async def _keep_alive(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._last_sent = loop.time()
        while True:
            silent_s = loop.time() - self._last_sent
            if silent_s < self._keep_alive_s:
                await asyncio.sleep(self._keep_alive_s - silent_s)
            else:
                await self._send(KEEP_ALIVE, send)


async def disconnection(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
