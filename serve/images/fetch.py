"""Fetching the images that clients name by URL, without lending them this machine's place in the
network.

Whether an address is public is asked of the very address that a socket is about to be connected
to, for each connection: whatever a name resolved to a moment before, however an address is spelt,
and wherever a redirect leads. Until a public server has answered, all failures read the same.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from serve.images.public_address import is_public
from serve.images.still_image import ImageProblem, check_num_bytes

HTTPS_PORT = 443
MAX_URL_LENGTH = 8192
MAX_REDIRECTS = 3
CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 15.0
"""From the first connection to the last byte, redirects included."""
NUM_FETCHES = 16
"""Fetches at the same time, each of up to 10 MiB; further ones wait."""
NUM_LOOKUPS = 4

REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {
    "User-Agent": "Tunery",
    "Accept": "image/png, image/jpeg, image/webp, image/gif",
    # A few compressed bytes can stand for gigabytes, and images gain nothing by it.
    "Accept-Encoding": "identity",
}
UNREACHABLE = "the image cannot be fetched: no public https server answers at its URL"

logger = logging.getLogger(__name__)

IsAllowed = Callable[[IPv4Address | IPv6Address], bool]


class ImageFetcher:
    """Fetches over https from public addresses.

    is_allowed: which addresses may be connected to; ssl_context: whom to trust, the system's
    authorities when absent; port: the only one that is connected to. Others than 443 are refused
    because a public host's further ports are seldom meant for strangers, this machine's own public
    address included, and because nobody's ports are to be tried by way of this server.
    """

    def __init__(
        self,
        *,
        is_allowed: IsAllowed = is_public,
        ssl_context: ssl.SSLContext | None = None,
        port: int = HTTPS_PORT,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._is_allowed = is_allowed
        self._ssl_context = ssl_context
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._places = asyncio.Semaphore(NUM_FETCHES)
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """The body behind an https URL, of at most 10 MiB; raises `ImageProblem`."""
        target = self._parse(url)
        async with self._places:
            try:
                return await self._follow(target)
            except (aiohttp.ClientError, OSError) as error:
                # In the log without path and query, which may hold a signature.
                logger.info("no image from %s: %s", target.host, type(error).__name__)
                raise ImageProblem(UNREACHABLE) from error

    async def close(self) -> None:
        """End running fetches; may be called twice."""
        if self._session is not None:
            await self._session.close()

    def _parse(self, text: str) -> URL:
        if len(text) > MAX_URL_LENGTH:
            raise ImageProblem(f"the image's URL has more than {MAX_URL_LENGTH} characters")
        try:
            url = URL(text)
        except ValueError as error:
            raise ImageProblem("the image's URL is not valid") from error
        if url.scheme != "https" or not url.raw_host:
            raise ImageProblem("the image's URL must be `https://` and the name of a public host")
        if url.raw_user is not None or url.raw_password is not None:
            raise ImageProblem("the image's URL must hold no user name or password")
        if url.port != self._port:
            raise ImageProblem(f"the image's URL must have port {self._port}, as https has it")
        return url

    async def _follow(self, url: URL) -> bytes:
        deadline = time.monotonic() + self._total_timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            timeout = aiohttp.ClientTimeout(
                total=max(deadline - time.monotonic(), 0.001),  # 0 would stand for none
                sock_connect=self._connect_timeout_s,
            )
            request = self._open_session().get(url, allow_redirects=False, timeout=timeout)
            async with request as response:
                if response.status not in REDIRECTS:
                    return await _read(response)
                url = self._redirected(url, response.headers.get("Location", ""))
        raise ImageProblem(f"the image's URL redirects more than {MAX_REDIRECTS} times")

    def _redirected(self, url: URL, location: str) -> URL:
        """Where a redirect leads, checked as the first URL was; what is wrong there stays here."""
        try:
            return self._parse(str(url.join(URL(location))))
        except (ImageProblem, ValueError) as error:
            raise ImageProblem(UNREACHABLE) from error

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, made at the first use, when there is a loop for it to live in."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._ssl_context or True,
                    resolver=_Resolver(),
                    use_dns_cache=False,
                    # No connection outlives the request that it was opened for.
                    force_close=True,
                    socket_factory=self._open_socket,
                ),
                headers=HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for an address, given as by `getaddrinfo`; an OSError where it is not allowed.

        Every connection comes through here, those to addresses spelt out in a URL too, which no
        resolver is asked for.
        """
        family, kind, protocol, _, (host, *_) = address
        if not self._is_allowed(ip_address(host)):
            raise PermissionError("not a public address")
        return socket.socket(family, kind, protocol)


class _Resolver(AbstractResolver):
    """The system's resolver, in threads of its own: slow names keep nothing else waiting."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NUM_LOOKUPS, thread_name_prefix="image-hosts")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        kind, protocol = socket.SOCK_STREAM, socket.IPPROTO_TCP
        try:
            infos = await loop.run_in_executor(
                self._threads, socket.getaddrinfo, host, port, family, kind, protocol
            )
        except UnicodeError as error:
            raise OSError("not a name that could be looked up") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, _, _, address in infos
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body of a public server's answer; raises `ImageProblem` where it is no image."""
    if response.status != 200:
        raise ImageProblem(f"the image cannot be fetched: its host answers {response.status}")
    if not response.content_type.startswith("image/"):
        raise ImageProblem(
            f"the image's URL leads to {response.content_type[:80]}, not to an image"
        )
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise ImageProblem("the image's host sends it compressed, which is not accepted")
    check_num_bytes(response.content_length or 0)
    body = bytearray()
    try:
        async for piece in response.content.iter_any():
            body += piece
            check_num_bytes(len(body))
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise ImageProblem("the image's host broke off, or took too long to send it") from error
    return bytes(body)
