"""Fetching over real HTTPS from this machine, which the default check refuses to reach."""

import asyncio
import gzip
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
import uvloop
from aiohttp import web

from serve.images.fetch import HEADERS, NUM_FETCHES, UNREACHABLE, ImageFetcher
from serve.images.still_image import MAX_BYTES, ImageProblem
from tests.serve.images.https_server import (
    Handler,
    Server,
    allow_loopback,
    https_server,
    raw_server,
    trusting,
)
from tests.serve.images.pictures import encoded, gradient

PICTURE = encoded(gradient(60, 40), "PNG")


def fetcher(port: int, *, total_timeout_s: float = 15.0) -> ImageFetcher:
    return ImageFetcher(
        is_allowed=allow_loopback,
        ssl_context=trusting(),
        port=port,
        connect_timeout_s=1.0,
        total_timeout_s=total_timeout_s,
    )


async def fetch_with(images: ImageFetcher, url: str) -> bytes:
    try:
        return await images.fetch(url)
    finally:
        await images.close()


async def problem_of(images: ImageFetcher, url: str) -> str:
    with pytest.raises(ImageProblem) as caught:
        await fetch_with(images, url)
    return str(caught.value)


async def send_picture(request: web.Request) -> web.StreamResponse:
    return web.Response(body=PICTURE, content_type="image/png")


def with_server(
    handler: Handler, test: Callable[[Server], Awaitable[None]], *, loop: str = "asyncio"
) -> None:
    async def run() -> None:
        async with https_server(handler) as server:
            await test(server)

    if loop == "uvloop":
        uvloop.run(run())
    else:
        asyncio.run(run())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_an_image_is_fetched(host: str, loop: str) -> None:
    async def test(server: Server) -> None:
        url = server.url("/a%20b c.png?x=ü#part", host)
        assert await fetch_with(fetcher(server.port), url) == PICTURE
        assert server.requests[0].raw_path == "/a%20b%20c.png?x=%C3%BC"

    with_server(send_picture, test, loop=loop)


def test_a_host_learns_nothing_but_that_an_image_is_wanted() -> None:
    async def test(server: Server) -> None:
        await fetch_with(fetcher(server.port), server.url())
        told = {"Host": f"localhost:{server.port}", "Connection": "close", **HEADERS}
        assert dict(server.requests[0].headers) == told

    with_server(send_picture, test)


SPELLINGS = [
    *("localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.0.1.", "127.1", "2130706433"),
    *("0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0", "0.0.0.0", "[::]", "[::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "127.0.0.2"),
    *("[::1%25lo]", "[::1%lo]", "[fe80::1%25eth0]", "１２７.0.0.1", "①②⑦.0.0.1", "ⓛocalhost"),
    *("127。0。0。1", "%31%32%37.0.0.1", "ip6-localhost"),
]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("host", SPELLINGS)
def test_this_machine_is_not_reached_however_it_is_spelt(host: str, loop: str) -> None:
    async def test(server: Server) -> None:
        # All but the address would let the request through.
        images = ImageFetcher(ssl_context=trusting(), port=server.port)
        problem = await problem_of(images, server.url("/", host))
        assert problem in (UNREACHABLE, "the image's URL is not valid")
        assert server.num_connections == 0

    with_server(send_picture, test, loop=loop)


def test_the_address_is_checked_that_is_connected_to() -> None:
    checked: list[IPv4Address | IPv6Address] = []

    def allow_one(address: IPv4Address | IPv6Address) -> bool:
        checked.append(address)
        return address == ip_address("127.0.0.1")

    async def test(server: Server) -> None:
        images = ImageFetcher(is_allowed=allow_one, ssl_context=trusting(), port=server.port)
        assert await images.fetch(server.url()) == PICTURE
        assert server.requests[0].remote == "::ffff:127.0.0.1"
        # A second time too: nothing that was looked up or opened before is used again.
        num_checked = len(checked)
        assert await images.fetch(server.url()) == PICTURE
        assert len(checked) == 2 * num_checked
        with pytest.raises(ImageProblem):
            await images.fetch(server.url("/", "[::1]"))
        await images.close()

    with_server(send_picture, test)


def redirecting(location: str, *, status: int = 302) -> Handler:
    """`/` leads to `location`; the rest are pictures."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/":
            port = request.url.port
            headers = {"Location": location.format(port=port), "Set-Cookie": "a=b; Path=/"}
            return web.Response(status=status, headers=headers)
        return await send_picture(request)

    return handle


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/there", "there", "//localhost:{port}/there", "https://127.0.0.1:{port}/there"]
)
def test_redirects_are_followed(location: str, status: int) -> None:
    async def test(server: Server) -> None:
        assert await fetch_with(fetcher(server.port), server.url()) == PICTURE
        assert [request.path for request in server.requests] == ["/", "/there"]
        assert "Cookie" not in server.requests[1].headers
        assert "Referer" not in server.requests[1].headers

    with_server(redirecting(location, status=status), test)


@pytest.mark.parametrize(
    "location",
    [
        *(
            "https://127.0.0.2:{port}/there",
            "https://[::1]:{port}/there",
            "https://169.254.169.254/",
        ),
        *("http://localhost:{port}/there", "https://localhost:1/", "https://localhost/there"),
        *("https://user:secret@localhost:{port}/there", "file:///etc/passwd", "data:image/png,x"),
        *("https://[", "https://nowhere.invalid:{port}/", "gopher://localhost/"),
    ],
)
def test_where_a_redirect_leads_is_checked_and_not_told(location: str) -> None:
    def allow_one(address: IPv4Address | IPv6Address) -> bool:
        return address == ip_address("127.0.0.1")

    async def test(server: Server) -> None:
        images = ImageFetcher(is_allowed=allow_one, ssl_context=trusting(), port=server.port)
        problem = await problem_of(images, server.url("/", "127.0.0.1"))
        assert problem == UNREACHABLE
        assert {request.path for request in server.requests} == {"/"}

    with_server(redirecting(location), test)


@pytest.mark.parametrize("location", ["", "https://", "/"])
def test_redirects_to_the_start_end(location: str) -> None:
    async def test(server: Server) -> None:
        problem = await problem_of(fetcher(server.port), server.url())
        assert problem == "the image's URL redirects more than 3 times"

    with_server(redirecting(location), test)


@pytest.mark.parametrize(("num_redirects", "is_fetched"), [(3, True), (4, False)])
def test_three_redirects_are_the_most(num_redirects: int, is_fetched: bool) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        done = int(request.path.strip("/") or 0)
        if done == num_redirects:
            return await send_picture(request)
        return web.Response(status=302, headers={"Location": f"/{done + 1}"})

    async def test(server: Server) -> None:
        if is_fetched:
            assert await fetch_with(fetcher(server.port), server.url()) == PICTURE
        else:
            problem = await problem_of(fetcher(server.port), server.url())
            assert problem == "the image's URL redirects more than 3 times"
            assert len(server.requests) == 4

    with_server(handle, test)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost/x.png", "`https://`"),
        ("ftp://localhost/x.png", "`https://`"),
        ("https:///x.png", "`https://`"),
        ("https:x.png", "`https://`"),
        ("//localhost/x.png", "`https://`"),
        ("https://user:secret@localhost/x.png", "no user name"),
        ("https://user@localhost/x.png", "no user name"),
        ("https://:secret@localhost/x.png", "no user name"),
        ("https://localhost:8443/x.png", "port 443"),
        ("https://localhost:22/", "port 443"),
        ("https://localhost:99999/", "not valid"),
        ("https://a\\b/", "not valid"),
        ("https://[::1/", "not valid"),
        (f"https://localhost/{'x' * 8192}", "8192 characters"),
    ],
)
def test_urls_of_another_form_are_refused_by_what_is_wrong(url: str, reason: str) -> None:
    async def test() -> None:
        assert reason in await problem_of(ImageFetcher(is_allowed=allow_loopback), url)

    asyncio.run(test())


def test_a_callers_words_are_the_same_wherever_no_public_server_answers() -> None:
    """Else they would map the network: which addresses exist there, and which ports are open."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.internal ESMTP\r\n")

    async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.internal ESMTP\r\n\r\n")
        await writer.drain()

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            closed_port = free.getsockname()[1]
        long_name = "https://" + "a" * 70 + ".invalid:{port}/"
        async with (
            raw_server(silent, tls=False) as mute,
            raw_server(no_tls, tls=False) as plain,
            raw_server(no_http) as other,
        ):
            cases = [
                ("https://127.0.0.1:{port}/", closed_port),
                ("https://nowhere.invalid:{port}/", 443),
                (long_name, 443),
                ("https://a..b:{port}/", 443),
                ("https://127.0.0.1:{port}/", mute),
                ("https://127.0.0.1:{port}/", plain),
                ("https://127.0.0.1:{port}/", other),
                ("https://10.0.0.1:{port}/", mute),
            ]
            for url, port in cases:
                url = url.format(port=port)
                assert await problem_of(fetcher(port), url) == UNREACHABLE, url

    asyncio.run(test())


def test_certificates_are_checked() -> None:
    async def test(server: Server) -> None:
        strangers = ImageFetcher(is_allowed=allow_loopback, port=server.port)
        assert await problem_of(strangers, server.url()) == UNREACHABLE
        url = server.url("/", "127.0.0.3")  # which the certificate does not name
        assert await problem_of(fetcher(server.port), url) == UNREACHABLE
        assert server.requests == []

    with_server(send_picture, test)


def test_proxies_and_keys_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine localhost login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def test(server: Server) -> None:
        assert await fetch_with(fetcher(server.port), server.url()) == PICTURE
        assert "Authorization" not in server.requests[0].headers

    with_server(send_picture, test)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410, 429, 500, 503])
def test_other_answers_than_200_are_told(status: int) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, content_type="image/png")

    async def test(server: Server) -> None:
        problem = await problem_of(fetcher(server.port), server.url())
        assert problem == f"the image cannot be fetched: its host answers {status}"

    with_server(handle, test)


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "imagex/png"])
def test_what_is_declared_to_be_no_image_is_refused(kind: str) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, content_type=kind)

    async def test(server: Server) -> None:
        problem = await problem_of(fetcher(server.port), server.url())
        assert problem == f"the image's URL leads to {kind}, not to an image"

    with_server(handle, test)


def test_compressed_bodies_are_refused_unread() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        bomb = gzip.compress(bytes(50 * 1024**2))
        headers = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
        return web.Response(body=bomb, headers=headers)

    async def test(server: Server) -> None:
        assert "compressed" in await problem_of(fetcher(server.port), server.url())

    with_server(handle, test)


def test_a_declared_length_above_the_limit_is_refused_unread() -> None:
    async def test(server: Server) -> None:
        assert "10 MiB" in await problem_of(fetcher(server.port), server.url())

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        response.content_length = MAX_BYTES + 1
        await response.prepare(request)
        await asyncio.sleep(0.5)
        return response

    with_server(handle, test)


@pytest.mark.parametrize("is_chunked", [True, False])
def test_an_endless_body_is_cut_at_the_limit(is_chunked: bool) -> None:
    num_sent = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_sent
        await reader.readuntil(b"\r\n\r\n")
        coding = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n" + coding + b"\r\n")
        piece = bytes(65_536)
        while num_sent < 20 * MAX_BYTES:
            writer.write(b"10000\r\n" + piece + b"\r\n" if is_chunked else piece)
            await writer.drain()
            num_sent += len(piece)

    async def test() -> None:
        async with raw_server(handle) as port:
            problem = await problem_of(fetcher(port), f"https://127.0.0.1:{port}/")
            assert "10 MiB" in problem
            # What lies in buffers on the way comes on top.
            assert MAX_BYTES < num_sent < 2 * MAX_BYTES

    asyncio.run(test())


def test_a_body_that_breaks_off_is_refused() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head + PICTURE[:20])
        await writer.drain()

    async def test() -> None:
        async with raw_server(handle) as port:
            problem = await problem_of(fetcher(port), f"https://127.0.0.1:{port}/")
            assert "broke off" in problem

    asyncio.run(test())


def test_all_of_it_takes_at_most_the_total_time() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        if request.path != "/slow":
            await asyncio.sleep(0.4)
            return web.Response(status=302, headers={"Location": request.path + "x"})
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(100):
                await response.write(b"x")
                await asyncio.sleep(0.1)
        return response

    async def test(server: Server) -> None:
        clock = asyncio.get_running_loop().time
        start = clock()
        images = fetcher(server.port, total_timeout_s=1.0)
        with pytest.raises(ImageProblem, match="too long"):
            await images.fetch(server.url("/slow"))
        assert 0.9 < clock() - start < 3
        start = clock()
        # Each of these answers is quick enough, all of them together are not.
        assert await problem_of(images, server.url("/")) == UNREACHABLE
        assert 0.9 < clock() - start < 1.5

    with_server(drip, test)


def test_no_more_than_so_many_fetches_run_at_a_time() -> None:
    running = peak = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.05)
        running -= 1
        return await send_picture(request)

    async def test(server: Server) -> None:
        images = fetcher(server.port)
        url = server.url("/", "127.0.0.1")
        fetches = (images.fetch(url) for _ in range(2 * NUM_FETCHES + 3))
        assert set(await asyncio.gather(*fetches)) == {PICTURE}
        await images.close()
        assert 1 < peak <= NUM_FETCHES

    with_server(handle, test)


def test_cancelling_a_fetch_hangs_up_and_frees_its_place() -> None:
    async def test() -> None:
        gone = asyncio.Event()
        asked = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            gone.set()

        async with raw_server(handle) as port:
            images = fetcher(port)
            for _ in range(NUM_FETCHES + 1):
                asked.clear()
                gone.clear()
                task = asyncio.create_task(images.fetch(f"https://127.0.0.1:{port}/"))
                await asyncio.wait_for(asked.wait(), 5)
                task.cancel()
                await asyncio.wait_for(gone.wait(), 5)
            await images.close()
            await images.close()

    asyncio.run(test())


def test_logs_name_the_host_and_keep_what_a_url_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = "https://nowhere.invalid/secret-path?signature=secret"
    asyncio.run(problem_of(ImageFetcher(), url))
    assert "no image from nowhere.invalid" in caplog.text
    assert "secret" not in caplog.text
