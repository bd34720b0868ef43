"""What an engine's events are to a client: one JSON object, or a stream of chunks."""

import time
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson

from serve.engine import (
    Alternative,
    ChoiceEnd,
    Completion,
    EngineError,
    Event,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

DONE = b"data: [DONE]\n\n"


async def whole_answer(events: AsyncIterator[Event], *, model: str, request: Completion) -> bytes:
    """The body of an answer in one piece; model: the name that the client called.

    Without counts where the engine gives none. Raises `EngineError` where an answer does not end.
    """
    choices = [_Choice(index) for index in range(request.num_choices)]
    usage: dict[str, Any] = {}
    async for event in events:
        if isinstance(event, Usage):
            usage = {"usage": _usage(event)}
        else:
            choices[event.choice].take(event)
    if not all(choice.has_ended for choice in choices):
        raise EngineError("the answer has no end")
    told = [choice.to_json(request) for choice in choices]
    return orjson.dumps(_head("chat.completion", model) | {"choices": told} | usage)


class AnswerStream:
    """Turns events into server-sent events of chunks, all of them of one answer."""

    def __init__(self, *, model: str, request: Completion, include_usage: bool) -> None:
        self._request = request
        self._include_usage = include_usage
        head = orjson.dumps(_head("chat.completion.chunk", model))
        # Only the choice differs from chunk to chunk: all else is written once.
        self._before = b"data: " + head[:-1] + b',"choices":['
        self._after = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"

    def opening(self) -> bytes:
        """The chunks that say who speaks, one for each answer."""
        role = {"role": "assistant", "content": ""}
        return b"".join(self._chunk(n, role) for n in range(self._request.num_choices))

    def render(self, event: Event) -> bytes:
        """The chunk of an event; empty for a count that was not asked for."""
        if isinstance(event, TextDelta):
            return self._chunk(event.choice, {"content": event.text}, logprobs=event.logprobs)
        if isinstance(event, ToolCallDelta):
            return self._chunk(event.choice, {"tool_calls": [_call_piece(event)]})
        if isinstance(event, ChoiceEnd):
            return self._chunk(event.choice, {}, reason=event.reason)
        if not self._include_usage:
            return b""
        return self._before + b'],"usage":' + orjson.dumps(_usage(event)) + b"}\n\n"

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        reason: str | None = None,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": reason}
        if logprobs:
            choice["logprobs"] = _logprobs(logprobs)
        return self._before + orjson.dumps(choice) + self._after


def error_event(body: dict[str, Any]) -> bytes:
    """The last event of a stream that broke."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


class _Choice:
    """One answer while its pieces come in."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._reason: str | None = None

    def take(self, event: TextDelta | ToolCallDelta | ChoiceEnd) -> None:
        """Add what the engine said next."""
        if isinstance(event, TextDelta):
            self._texts.append(event.text)
            self._logprobs += event.logprobs
        elif isinstance(event, ToolCallDelta):
            self._take_call(event)
        else:
            self._reason = event.reason

    def _take_call(self, event: ToolCallDelta) -> None:
        empty = {"id": "", "index": event.call, "type": "function"}
        call = self._calls.setdefault(
            event.call, {**empty, "function": {"name": "", "arguments": ""}}
        )
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.arguments

    @property
    def has_ended(self) -> bool:
        """Whether the engine said why it ended."""
        return self._reason is not None

    def to_json(self, request: Completion) -> dict[str, Any]:
        """The choice as clients get it; text beside calls is null where there is none."""
        text = "".join(self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self._calls:
            message["content"] = text or None
            message["tool_calls"] = [self._calls[number] for number in sorted(self._calls)]
        choice = {"index": self._index, "message": message, "finish_reason": self._reason}
        if request.top_logprobs is not None:
            choice["logprobs"] = _logprobs(self._logprobs)
        return choice


def _head(kind: str, model: str) -> dict[str, Any]:
    """What the answer and all chunks of a stream begin with."""
    return {
        "id": f"chatcmpl-{uuid.uuid4()}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _call_piece(event: ToolCallDelta) -> dict[str, Any]:
    """A piece of a call: its name and id stand only in the first one."""
    function: dict[str, str] = {"arguments": event.arguments}
    piece: dict[str, Any] = {"index": event.call, "function": function}
    if event.name is not None:
        function["name"] = event.name
        piece |= {"id": event.id, "type": "function"}
    return piece


def _logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    content = [
        {**_alternative(token), "top_logprobs": [_alternative(other) for other in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _alternative(token: Alternative) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.utf8)}
