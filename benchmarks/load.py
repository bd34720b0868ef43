"""Streams of requests against a chat interface, and what their users saw."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import orjson

CHAT_PATH = "/v1/chat/completions"
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=600)


class Address(NamedTuple):
    """Where requests go. url: without a path; socket: a unix socket to reach it by; key: if any;
    keeps_connections: whether a connection can be used again (llama.cpp closes it after a stream).
    """

    url: str
    socket: Path | None = None
    key: str = "none"
    keeps_connections: bool = True


class Timing(NamedTuple):
    """One request, in seconds. status: of HTTP; first_token_s: nan where it was refused."""

    status: int
    first_token_s: float
    total_s: float


class Load(NamedTuple):
    """What a number of streams saw together. seconds: from the first request to the last word."""

    timings: list[Timing]
    seconds: float

    @property
    def answered(self) -> list[Timing]:
        """The requests that were let in."""
        return [timing for timing in self.timings if timing.status == 200]

    @property
    def requests_per_s(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds

    def first_token_ms(self, percentile: float) -> float:
        """A percentile of the time to the first token, in milliseconds."""
        return float(np.percentile([one.first_token_s for one in self.answered], percentile)) * 1e3

    def total_s(self, percentile: float) -> float:
        """A percentile of the time to the last word, in seconds."""
        return float(np.percentile([one.total_s for one in self.answered], percentile))


Body = Mapping[str, Any]


def run_streams(
    address: Address, bodies: Iterator[Body], *, num_streams: int, num_requests: int
) -> Load:
    """Ask `num_requests` in all, `num_streams` at a time, each the next once its last is done."""
    numbered = itertools.islice(bodies, num_requests)
    return asyncio.run(_run(address, num_streams, lambda: next(numbered, None), pause_s=0.0))


def run_for(
    address: Address, bodies: Iterator[Body], *, num_streams: int, seconds: float, pause_s: float
) -> Load:
    """Ask for a time, `num_streams` at once; who is refused asks again after `pause_s`."""
    deadline = time.monotonic() + seconds
    return asyncio.run(
        _run(
            address,
            num_streams,
            lambda: next(bodies) if time.monotonic() < deadline else None,
            pause_s=pause_s,
        )
    )


async def _run(
    address: Address, num_streams: int, next_body: Callable[[], Body | None], *, pause_s: float
) -> Load:
    timings: list[Timing] = []
    force_close = not address.keeps_connections
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    if address.socket is not None:
        path = str(address.socket)
        connector = aiohttp.UnixConnector(path=path, limit=0, force_close=force_close)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {address.key}"}

    async def stream(client: aiohttp.ClientSession) -> None:
        while (body := next_body()) is not None:
            timings.append(await _ask(client, address.url, body))
            if timings[-1].status != 200:
                await asyncio.sleep(pause_s)

    async with aiohttp.ClientSession(
        connector=connector, timeout=REQUEST_TIMEOUT, headers=headers
    ) as client:
        started = time.perf_counter()
        await asyncio.gather(*(stream(client) for _ in range(num_streams)))
        return Load(timings, time.perf_counter() - started)


async def _ask(client: aiohttp.ClientSession, url: str, body: Body) -> Timing:
    first_s = float("nan")
    started = time.perf_counter()
    async with client.post(url + CHAT_PATH, data=orjson.dumps(body)) as answer:
        if answer.status != 200:
            await answer.read()
            return Timing(answer.status, first_s, time.perf_counter() - started)
        async for line in answer.content:
            if first_s != first_s and _has_text(line):
                first_s = time.perf_counter() - started
    return Timing(200, first_s, time.perf_counter() - started)


def _has_text(line: bytes) -> bool:
    if not line.startswith(b"data: {"):
        return False
    choices = orjson.loads(line[6:])["choices"]
    return any(choice["delta"].get("content") for choice in choices)
