"""From a URL in a request to what an engine can be handed."""

import asyncio

import pytest

from serve.engine import RequestRefused
from serve.images.fetch import ImageFetcher
from serve.images.load import NUM_DECODES, ImageLoader
from serve.images.still_image import decode_data_url, to_data_url
from tests.serve.images.https_server import Server, allow_loopback, https_server, trusting
from tests.serve.images.pictures import decoded, empty_png, encoded, gradient
from tests.serve.images.test_fetch import PICTURE, send_picture

FIELD = "messages[0].content[1].image_url"


async def load(url: str, *, fetch_urls: bool = True) -> str:
    loader = ImageLoader(fetch_urls=fetch_urls)
    try:
        return await loader.load(url, field=FIELD)
    finally:
        await loader.close()


def refusal(url: str, *, fetch_urls: bool = True) -> str:
    with pytest.raises(RequestRefused) as caught:
        asyncio.run(load(url, fetch_urls=fetch_urls))
    assert caught.value.field == FIELD
    return str(caught.value)


def test_data_urls_come_back_checked() -> None:
    url = to_data_url(PICTURE, "image/png")
    assert asyncio.run(load(url)) == url
    assert asyncio.run(load(url, fetch_urls=False)) == url
    assert asyncio.run(load("DATA" + url[4:])) == url


def test_https_urls_are_fetched_and_checked() -> None:
    async def test() -> None:
        async with https_server(send_picture) as server:
            fetcher = ImageFetcher(
                is_allowed=allow_loopback, ssl_context=trusting(), port=server.port
            )
            loader = ImageLoader(fetch_urls=True, fetcher=fetcher)
            for url in (server.url(), server.url().replace("https", "HTTPS")):
                assert await loader.load(url, field=FIELD) == to_data_url(PICTURE, "image/png")
            await loader.close()
            await loader.close()

    asyncio.run(test())


def test_this_machine_is_refused_by_default() -> None:
    async def test(server: Server) -> str:
        fetcher = ImageFetcher(ssl_context=trusting(), port=server.port)
        loader = ImageLoader(fetch_urls=True, fetcher=fetcher)
        with pytest.raises(RequestRefused) as caught:
            await loader.load(server.url(), field=FIELD)
        await loader.close()
        assert server.num_connections == 0
        return str(caught.value)

    async def run() -> str:
        async with https_server(send_picture) as server:
            return await test(server)

    assert "no public https server" in asyncio.run(run())


def test_the_field_is_named_with_each_refusal() -> None:
    assert "broken" in refusal(to_data_url(PICTURE[:60], "image/png"))
    assert "base64" in refusal("data:image/png;base64,?")
    assert "no public https server" in refusal("https://127.0.0.1/x.png")
    assert "port 443" in refusal("https://localhost:1/x.png")
    assert "as a `data:` URL" in refusal("https://localhost/x.png", fetch_urls=False)
    for url in ("http://localhost/x.png", "file:///etc/passwd", "", "x", "https", "blob:x"):
        assert "must be a `data:` URL or a public https URL" in refusal(url)


def test_images_are_scaled_to_what_the_model_sees() -> None:
    async def test() -> str:
        loader = ImageLoader(fetch_urls=False, longest_edge=30)
        try:
            return await loader.load(to_data_url(PICTURE, "image/png"), field=FIELD)
        finally:
            await loader.close()

    assert decoded(decode_data_url(asyncio.run(test()))).size == (30, 20)


def test_the_loop_goes_on_while_images_are_decoded() -> None:
    url = to_data_url(empty_png(6000, 6000), "image/png")
    small = to_data_url(encoded(gradient(9, 9), "GIF"), "image/gif")

    async def test() -> int:
        loader = ImageLoader(fetch_urls=False)
        loads = [loader.load(url, field=FIELD) for _ in range(NUM_DECODES)]
        work = asyncio.gather(*loads, loader.load(small, field=FIELD))
        num_ticks = 0
        while not work.done():
            await asyncio.sleep(0.005)
            num_ticks += 1
        large, *_, least = work.result()
        assert decoded(decode_data_url(large)).size == (1540, 1540)
        assert decoded(decode_data_url(least)).size == (9, 9)
        await loader.close()
        return num_ticks

    assert asyncio.run(test()) > 5
