"""A host in a process of its own for `benchmarks.evaluate`: slow, now and then busy, and it counts.

Run as a program it prints its address and serves until its standard input is closed.
"""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

CHAPTERS = ("Circulatory", "Digestive", "Nervous", "Respiratory", "Skin")
RETRY_AFTER_S = 1


@dataclass
class Seen:
    """What the host saw. service_s: time spent on answers, summed; first_s and last_s: when the
    first request came and the last answer left, by `time.monotonic`; answered: by question.
    """

    num_requests: int = 0
    num_busy: int = 0
    service_s: float = 0.0
    most_at_once: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    answered: Counter[str] = field(default_factory=Counter)

    @property
    def num_answers(self) -> int:
        """Answers sent, repeated ones included."""
        return sum(self.answered.values())

    @property
    def num_repeated(self) -> int:
        """Answers that had been given before."""
        return self.num_answers - len(self.answered)


@dataclass
class SlowHost:
    """latency_s: of each answer; busy_every: each n-th request gets 429 and Retry-After instead;
    hold_after: after so many answers none is sent until it is changed.
    """

    latency_s: float = 0.2
    busy_every: int = 20
    hold_after: int | None = None
    seen: Seen = field(default_factory=Seen)
    in_flight: int = 0

    async def answer(self, request: Request) -> JSONResponse:
        """POST /v1/chat/completions."""
        try:
            body = await request.json()
        except ClientDisconnect:
            # The client was killed while it sent.
            return JSONResponse({}, 499)
        seen, started = self.seen, time.monotonic()
        seen.first_s = seen.first_s or started
        seen.num_requests += 1
        if self.busy_every and seen.num_requests % self.busy_every == 0:
            seen.num_busy += 1
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return JSONResponse({"error": {"message": "busy"}}, 429, headers)
        self.in_flight += 1
        seen.most_at_once = max(seen.most_at_once, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
            # Between this check and the count nothing else runs.
            while self.hold_after is not None and seen.num_answers >= self.hold_after:
                if await request.is_disconnected():
                    return JSONResponse({}, 499)
                await asyncio.sleep(0.02)
        finally:
            self.in_flight -= 1
        question = body["messages"][-1]["content"]
        seen.answered[question] += 1
        seen.last_s = time.monotonic()
        seen.service_s += seen.last_s - started
        return JSONResponse(_completion(body["model"], question))

    async def tell(self, request: Request) -> JSONResponse:
        """GET /seen."""
        return JSONResponse(vars(self.seen) | {"in_flight": self.in_flight})

    async def change(self, request: Request) -> JSONResponse:
        """POST /change: other settings, and a fresh count."""
        for name, value in (await request.json()).items():
            setattr(self, name, value)
        self.seen = Seen()
        return JSONResponse({})

    async def release(self, request: Request) -> JSONResponse:
        """POST /release: answer again, counting on."""
        self.hold_after = None
        return JSONResponse({})

    async def hold(self, request: Request) -> JSONResponse:
        """POST /hold: after so many answers send none, counting on."""
        self.hold_after = int(await request.json())
        return JSONResponse({})


class RunningHost(NamedTuple):
    """The host's process, from outside."""

    url: str

    @property
    def base_url(self) -> str:
        """Address in front of /chat/completions."""
        return f"{self.url}/v1"

    def seen(self) -> Seen:
        """What it has seen since the last change."""
        told = self._get()
        del told["in_flight"]
        return Seen(**told | {"answered": Counter(told["answered"])})

    def num_in_flight(self) -> int:
        """Requests that it is answering."""
        return int(self._get()["in_flight"])

    def change(self, **settings: float | int | None) -> None:
        """Set fields of `SlowHost` and count afresh."""
        httpx.post(f"{self.url}/change", json=settings, trust_env=False).raise_for_status()

    def hold_after(self, num_answers: int) -> None:
        """Send no more than so many answers."""
        httpx.post(f"{self.url}/hold", json=num_answers, trust_env=False).raise_for_status()

    def release(self) -> None:
        """Stop holding answers back."""
        httpx.post(f"{self.url}/release", trust_env=False).raise_for_status()

    def _get(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/seen", trust_env=False)
        answer.raise_for_status()
        return dict(answer.json())


@contextmanager
def slow_host() -> Iterator[RunningHost]:
    """Run the host for the length of the block."""
    command = [sys.executable, "-m", "benchmarks.evaluate_host"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None, "it was asked for"
        assert process.stdout is not None, "it was asked for"
        yield RunningHost(process.stdout.readline().strip())
        process.stdin.close()


def _completion(model: str, question: str) -> dict[str, Any]:
    text = CHAPTERS[len(question) % len(CHAPTERS)]
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42},
    }


def main() -> None:
    """Serve until standard input ends."""
    host = SlowHost()
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", host.answer, methods=["POST"]),
            Route("/seen", host.tell),
            Route("/change", host.change, methods=["POST"]),
            Route("/hold", host.hold, methods=["POST"]),
            Route("/release", host.release, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    # asyncio sets it only on sockets that it opened itself; without it, each answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))

    def stop_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=stop_with_input, daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
