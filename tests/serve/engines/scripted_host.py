"""A host on a loopback port that sends the very bytes it is told to: for faults, which no real host
has on demand.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Asked:
    """A request as it came in."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Conversation:
    """One connection. number: which one it is, from 1; num_asked: requests that came in on it."""

    number: int
    writer: asyncio.StreamWriter
    asked: Asked
    num_asked: int

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def answer(self, status: int, body: object, **headers: str) -> None:
        """A whole response; a str goes as it is."""
        content = body.encode() if isinstance(body, str) else orjson.dumps(body)
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if "Content_Type" not in headers:
            lines.append("Content-Type: application/json")
        await self.send("\r\n".join([*lines, "", ""]).encode() + content)

    async def stream(self, *chunks: object, end: bool = True) -> None:
        """Server-sent events of these chunks, and `[DONE]`."""
        await self.send(HEAD)
        for chunk in chunks:
            await self.event(chunk)
        if end:
            await self.send(_in_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def event(self, chunk: object) -> None:
        await self.send(_in_chunk(b"data: " + orjson.dumps(chunk) + b"\n\n"))


def _in_chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


Script = Callable[[Conversation], Awaitable[None]]


@dataclass
class Host:
    """asked: all requests for completions; num_connections: those that were made to it."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    num_connections: int = 0


@asynccontextmanager
async def scripted_host(
    script: Script, *, models_status: int = 200, models_connection: str = "keep-alive"
) -> AsyncIterator[Host]:
    """Run `script` for each completion that is asked for; the connection stays open after it."""
    host = Host("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host.num_connections += 1
        number, num_asked = host.num_connections, 0
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                asked = await _read_request(reader)
                talk = Conversation(number, writer, asked, num_asked)
                if asked.line.startswith("GET /v1/models"):
                    await talk.answer(models_status, {"data": []}, Connection=models_connection)
                    if models_connection == "close":
                        break
                    continue
                num_asked += 1
                talk.num_asked = num_asked
                host.asked.append(asked)
                await script(talk)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield host
    finally:
        server.close()


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(head[0], headers, orjson.loads(body) if body else {})
