"""The images of requests, from wherever a client says they are to what an engine can be handed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from serve.engine import RequestRefused
from serve.images.fetch import ImageFetcher
from serve.images.still_image import LONGEST_EDGE, ImageProblem, check_image, decode_data_url

NUM_DECODES = 2
"""Images decoded at the same time, of which one at most is large."""


class ImageLoader:
    """Turns the URLs of images into `data:` URLs of checked ones, without holding up the loop.

    fetch_urls: take https URLs too, by way of `fetcher`; longest_edge: larger images are scaled
    down to that many pixels.
    """

    def __init__(
        self,
        *,
        fetch_urls: bool,
        fetcher: ImageFetcher | None = None,
        longest_edge: int = LONGEST_EDGE,
    ) -> None:
        self._fetcher = (fetcher or ImageFetcher()) if fetch_urls else None
        self._longest_edge = longest_edge
        self._threads = ThreadPoolExecutor(NUM_DECODES, thread_name_prefix="images")

    async def load(self, url: str, *, field: str) -> str:
        """A `data:` URL of the image behind a `data:` or https URL, as `check_image` makes it.

        field: where the URL stands in the request, such as `messages[0].content[1].image_url`.
        Raises `RequestRefused` with that field for an image that cannot be had or is no good.
        """
        try:
            if url[:5].lower() == "data:":
                return await self._in_thread(partial(decode_data_url, url))
            if url[:6].lower() != "https:":
                raise ImageProblem("an image must be a `data:` URL or a public https URL")
            if self._fetcher is None:
                raise ImageProblem("this server fetches no images: send it as a `data:` URL")
            content = await self._fetcher.fetch(url)
            return await self._in_thread(lambda: content)
        except ImageProblem as error:
            raise RequestRefused(str(error), field=field) from error

    async def _in_thread(self, read: Callable[[], bytes]) -> str:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: check_image(read(), longest_edge=self._longest_edge)
        )

    async def close(self) -> None:
        """End what is under way; may be called twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._fetcher is not None:
            await self._fetcher.close()
