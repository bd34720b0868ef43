"""A real HTTPS server on this machine, with a certificate from an authority made for the test."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import trustme
from aiohttp import web

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost", "127.0.0.1", "127.0.0.2", "::1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


def allow_loopback(address: IPv4Address | IPv6Address) -> bool:
    return address.is_loopback


@dataclass
class Server:
    port: int
    requests: list[web.BaseRequest] = field(default_factory=list)
    num_connections: int = 0

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"


@asynccontextmanager
async def https_server(handler: Handler) -> AsyncIterator[Server]:
    """Answers every request by `handler`, on all loopback addresses of both families."""
    with socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64
    ) as listener:
        server = Server(listener.getsockname()[1])

        async def record(request: web.BaseRequest) -> web.StreamResponse:
            server.requests.append(request)
            assert isinstance(request, web.BaseRequest)
            return await handler(request)  # type: ignore[arg-type]

        web_server = web.Server(record, access_log=None)

        def connected() -> asyncio.Protocol:
            server.num_connections += 1
            return web_server()

        loop = asyncio.get_running_loop()
        running = await loop.create_server(connected, sock=listener, ssl=server_context())
        try:
            yield server
        finally:
            running.close()
            await web_server.shutdown(0)


Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(answer: Connection, *, tls: bool = True) -> AsyncIterator[int]:
    """Hands every connection to `answer`, which may do anything; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(
        serve, "127.0.0.1", 0, ssl=server_context() if tls else None
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
