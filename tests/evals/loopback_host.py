"""A real OpenAI-compatible HTTP server on this machine, whose answers follow from the question."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback import run_app

Reply = Callable[[str, list[dict[str, str]]], str]


LOST = 0


class Failure(NamedTuple):
    """What a request gets instead of an answer; LOST: half an answer, then a closed connection."""

    status: int
    message: str = "not now"
    headers: dict[str, str] | None = None
    code: str | None = None


@dataclass
class LoopbackHost:
    """What the server does, and what it saw.

    reply: answer from model name and messages; turn: the assistant's whole turn in its place, by
    the question; finish_reason: by the question; failures: what the next requests get instead, in
    order; refuse: by the question, what it always gets; busy_every: each n-th request gets 429 with
    Retry-After; hang_after: later requests are never answered; gone_after: later ones get 500;
    max_words: longer prompts get 400, as hosts do beyond the model's context; key: without it 401;
    capabilities: what the list of models says of each;
    answered: answers sent, by last question; requests: bodies in order of arrival; arrived: when
    each did, by `time.monotonic`.
    """

    reply: Reply
    failures: list[Failure] = field(default_factory=list)
    refuse: Callable[[str], Failure | None] = lambda question: None
    turn: Callable[[str], dict[str, Any]] | None = None
    finish_reason: Callable[[str], str] = lambda question: "stop"
    arrived: list[float] = field(default_factory=list)
    busy_every: int = 0
    retry_after_seconds: float = 0.05
    delay_seconds: float = 0.0
    hang_after: int | None = None
    gone_after: int | None = None
    max_words: int | None = None
    key: str | None = None
    capabilities: dict[str, bool] = field(default_factory=dict)
    base_url: str = ""
    answered: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0

    def build_app(self) -> FastAPI:
        app = FastAPI()
        in_flight = 0

        @app.get("/v1/models/{name}")
        async def describe(name: str) -> dict[str, Any]:
            return {"id": name, "capabilities": self.capabilities}

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            nonlocal in_flight
            body = await request.json()
            self.requests.append(body)
            self.arrived.append(time.monotonic())
            in_flight += 1
            self.most_at_once = max(self.most_at_once, in_flight)
            try:
                return await self._respond(body, request.headers.get("authorization"))
            finally:
                in_flight -= 1

        return app

    async def _respond(self, body: dict[str, Any], authorization: str | None) -> Response:
        number = len(self.requests)
        question = body["messages"][-1]["content"]
        if self.key is not None and authorization != f"Bearer {self.key}":
            return _error(401, f"invalid api key, got {authorization}")
        if failure := (self.failures.pop(0) if self.failures else self.refuse(question)):
            if failure.status == LOST:
                # uvicorn closes a connection whose answer is shorter than promised.
                return Response("{", headers={"Content-Length": "1000"})
            return _error(failure.status, failure.message, failure.headers, code=failure.code)
        if self.busy_every and number % self.busy_every == 0:
            return _error(429, "slow down", {"Retry-After": str(self.retry_after_seconds)})
        if self.hang_after is not None and sum(self.answered.values()) >= self.hang_after:
            await asyncio.sleep(3600)
        if self.gone_after is not None and sum(self.answered.values()) >= self.gone_after:
            return _error(500, "the engine is gone")
        num_words = sum(len(message["content"].split()) for message in body["messages"])
        if self.max_words is not None and num_words > self.max_words:
            return _error(400, "maximum context length", code="context_length_exceeded")
        await asyncio.sleep(self.delay_seconds)
        text = "" if self.turn is not None else self.reply(body["model"], body["messages"])
        self.answered[question] += 1
        turn = {"content": text} if self.turn is None else self.turn(question)
        return JSONResponse(_completion(body, turn, self.finish_reason(question)))


@contextmanager
def run_host(host: LoopbackHost) -> Iterator[LoopbackHost]:
    """Serve `host` on a free port for the length of the block."""
    with run_app(host.build_app()) as address:
        host.base_url = f"{address}/v1"
        yield host


def _error(
    status: int, message: str, headers: dict[str, str] | None = None, *, code: str | None = None
) -> JSONResponse:
    error = {"message": message, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def _completion(body: dict[str, Any], turn: dict[str, Any], reason: str) -> dict[str, Any]:
    text = turn["content"] or ""
    num_prompt = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", **turn},
                "finish_reason": reason,
            }
        ],
        "usage": {
            "prompt_tokens": num_prompt,
            "completion_tokens": len(text.split()),
            "total_tokens": num_prompt + len(text.split()),
        },
    }
