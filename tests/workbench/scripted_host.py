"""An OpenAI-compatible host on this machine that streams what a test has written, word by word.

What a model says decides nothing there, so tests of the page control text, pace, calls and faults.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.loopback import run_app

MODEL = "scripted"
PIECE = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered. pause_s: between words; status: of a refusal with `text` as its message."""

    text: str = ""
    pause_s: float = 0.0
    tool_calls: tuple[dict[str, Any], ...] = ()
    status: int = 200

    def deltas(self) -> Iterator[dict[str, Any]]:
        """The pieces of a stream."""
        yield {"role": "assistant", "content": ""}
        for piece in PIECE.findall(self.text):
            yield {"content": piece}
        for index, call in enumerate(self.tool_calls):
            yield {"tool_calls": [{"index": index, "type": "function", **call}]}


@dataclass
class ScriptedHost:
    """What the host says to each question, and what it saw.

    answers: by the text of the last turn, else `otherwise`; in_turn: the same, one after the other;
    requests: bodies as they came;
    num_open: streams that are being sent; most_open: the largest number of them at once;
    num_cut_off: streams that the client ended.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    in_turn: dict[str, list[Answer]] = field(default_factory=dict)
    otherwise: Answer = Answer(text="As you say.")
    requests: list[dict[str, Any]] = field(default_factory=list)
    base_url: str = ""
    num_open: int = 0
    most_open: int = 0
    num_cut_off: int = 0

    def forget(self) -> None:
        """What was told and seen so far."""
        self.answers.clear()
        self.in_turn.clear()
        self.requests.clear()
        self.most_open = self.num_cut_off = 0

    def build_app(self) -> Starlette:
        """The host as an application."""
        return Starlette(
            routes=[
                Route("/v1/models", _models),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        question = last_text(body)
        if rest := self.in_turn.get(question):
            answer = rest.pop(0)
        else:
            answer = self.answers.get(question, self.otherwise)
        if answer.status != 200:
            return JSONResponse({"error": {"message": answer.text}}, answer.status)
        return StreamingResponse(self._stream(body, answer), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any], answer: Answer) -> AsyncIterator[str]:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        is_whole = False
        try:
            deltas = list(answer.deltas())
            for delta in deltas:
                yield _event([{"index": 0, "delta": delta, "finish_reason": None}])
                await asyncio.sleep(answer.pause_s)
            reason = "tool_calls" if answer.tool_calls else "stop"
            yield _event([{"index": 0, "delta": {}, "finish_reason": reason}])
            yield _event([], usage={"prompt_tokens": 7, "completion_tokens": len(deltas) - 1})
            yield "data: [DONE]\n\n"
            is_whole = True
        finally:
            self.num_open -= 1
            self.num_cut_off += not is_whole


def last_text(body: dict[str, Any]) -> str:
    """The text of the last turn."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})


def _event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> str:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": MODEL,
        "choices": choices,
        "usage": usage and usage | {"total_tokens": sum(usage.values())},
    }
    return f"data: {json.dumps(chunk)}\n\n"


@contextmanager
def run_scripted_host() -> Iterator[ScriptedHost]:
    """Serve a host on a free port until the block ends."""
    host = ScriptedHost()
    with run_app(host.build_app()) as address:
        host.base_url = f"{address}/v1"
        yield host
