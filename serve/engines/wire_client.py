"""Asking a host that speaks OpenAI's wire, over connections that are kept open."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson

from serve.engine import EngineError, EngineUnavailable, Events
from serve.engines.wire import ChunkReader, load_object, read_chunks
from serve.engines.wire_errors import HostError, find_error, read_error, read_retry_after

logger = logging.getLogger(__name__)

Json = dict[str, Any]

CONNECT_S = 10.0
KEEP_OPEN_S = 60.0
"""How long a connection is kept for the next request."""
PROBE_S = 10.0
MAX_ERROR_BYTES = 64 * 2**10
MAX_ANSWER_BYTES = 32 * 2**20
STREAM_TYPE = "text/event-stream"
CLOSED = "the engine has been closed"


class WireClient:
    """Connections to one host. Made and used within one event loop.

    base_url: in front of all paths; chat_path: where completions are posted; key: sent as a
    bearer's, and never told again; socket: unix socket to go through; proxy: address of an HTTP
    proxy to go through; silence_s: seconds without a sign after which a request is given up.
    """

    def __init__(
        self,
        base_url: str,
        *,
        silence_s: float,
        chat_path: str = "/chat/completions",
        key: str | None = None,
        socket: Path | None = None,
        proxy: str | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._chat_path = chat_path
        self._key = key
        self._silence_s = silence_s
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=KEEP_OPEN_S)
            if socket is not None
            else aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_OPEN_S)
        )
        self._closed = False
        self._waiting: set[asyncio.Timeout] = set()
        self._responses: set[aiohttp.ClientResponse] = set()
        self._http = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            proxy=proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s),
            trace_configs=[_watch_reuse()],
        )

    async def answer(self, body: Mapping[str, Any], *, num_choices: int) -> Events:
        """Post a completion and yield its events, as `Engine.complete` has them.

        Closing the generator closes the connection, which ends the work at the host.
        """
        reader = ChunkReader(num_choices=num_choices)
        try:
            async with (
                self._response(self._chat_path, body) as response,
                aclosing(_chunks(response)) as chunks,
            ):
                if response.status != 200:
                    raise await self._read_refusal(response)
                async for chunk in chunks:
                    for event in reader.feed(chunk):
                        yield event
            for event in reader.end():
                yield event
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from None

    async def ask(self, path: str, body: Mapping[str, Any]) -> Json:
        """Post something else than a completion; errors as for `answer`."""
        try:
            async with self._response(path, body) as response:
                if response.status != 200:
                    raise await self._read_refusal(response)
                return load_object(await _read(response, MAX_ANSWER_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from None

    async def status(self, path: str) -> int | None:
        """The status of a GET, or None where no answer comes within a few seconds."""
        if self._closed:
            return None
        try:
            async with (
                asyncio.timeout(PROBE_S),
                self._http.get(self._base_url + path, allow_redirects=False) as response,
            ):
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def close(self) -> None:
        """Close all connections; what runs ends with `EngineUnavailable`."""
        self._closed = True
        # Closing aiohttp's session leaves those who wait for one of its answers waiting.
        for deadline in self._waiting:
            deadline.reschedule(asyncio.get_running_loop().time())
        for response in self._responses:
            response.content.set_exception(aiohttp.ClientConnectionError())
        await self._http.close()

    @asynccontextmanager
    async def _response(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """A response, whose connection is closed with the block unless it has been read whole."""
        if self._closed:
            raise EngineUnavailable(CLOSED)
        async with asyncio.timeout(None) as deadline:
            self._waiting.add(deadline)
            try:
                response = await self._post(self._base_url + path, orjson.dumps(body))
            finally:
                self._waiting.discard(deadline)
        self._responses.add(response)
        try:
            async with response:
                yield response
        finally:
            self._responses.discard(response)

    async def _post(self, url: str, content: bytes) -> aiohttp.ClientResponse:
        """The response's head; a connection that the host closed while it was idle is replaced."""
        connection = SimpleNamespace(reused=False)
        try:
            return await self._http.post(
                url, data=content, allow_redirects=False, trace_request_ctx=connection
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not connection.reused:
                raise
        return await self._http.post(url, data=content, allow_redirects=False)

    async def _read_refusal(self, response: aiohttp.ClientResponse) -> Exception:
        content = await _read(response, MAX_ERROR_BYTES)
        try:
            body = orjson.loads(content)
        except ValueError:
            body = None  # a page of a proxy in between, for instance
        error = (find_error(body) if isinstance(body, dict) else None) or HostError("")
        if self._key:
            error = error._replace(message=error.message.replace(self._key, "[key]"))
        return read_error(
            error,
            status=response.status,
            retry_after_s=read_retry_after(response.headers.get("Retry-After")),
        )

    def _unavailable(self, error: Exception) -> EngineUnavailable:
        if self._closed:
            return EngineUnavailable(CLOSED)
        if isinstance(error, aiohttp.SocketTimeoutError):
            return EngineUnavailable(f"the engine said nothing for {self._silence_s:g} seconds")
        if isinstance(error, TimeoutError):
            return EngineUnavailable("the engine cannot be reached: no connection in time")
        if isinstance(error, aiohttp.ClientConnectorError):
            return EngineUnavailable(f"the engine cannot be reached: {error.strerror}")
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
            return EngineUnavailable("the engine broke the answer off")
        return EngineUnavailable(f"the connection to the engine failed: {type(error).__name__}")


def _watch_reuse() -> aiohttp.TraceConfig:
    """Tells `trace_request_ctx` whether a request went over a connection that was used before."""
    config = aiohttp.TraceConfig()

    async def note(session: object, context: SimpleNamespace, params: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.reused = True

    config.on_connection_reuseconn.append(note)
    return config


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[Json, None]:
    """The chunks of an answer; a host that does not stream sends one, the whole answer."""
    if response.content_type == STREAM_TYPE:
        async for chunk in read_chunks(response.content):
            yield chunk
    else:
        yield load_object(await _read(response, MAX_ANSWER_BYTES))


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > max_bytes:
            raise EngineError("the engine sent more than any answer holds")
    return bytes(content)
