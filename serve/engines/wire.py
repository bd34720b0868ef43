"""OpenAI's streaming wire, read into the events of `serve.engine`, however a host bends it.

Runs once for every token of every answer: no regular expressions, no models, one pass.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from serve.engine import (
    Alternative,
    ChoiceEnd,
    EngineError,
    EngineUnavailable,
    Event,
    FinishReason,
    TextDelta,
    TokenLogprob,
    Usage,
)
from serve.engines.wire_calls import CallReader
from serve.engines.wire_errors import find_error, read_error

MAX_EVENT_BYTES = 32 * 2**20
"""Longest event that is waited for; a whole answer in one is far below."""
LAST_BYTES_S = 0.1
"""What a host gets to end its response after `[DONE]`, so that its connection can be used again."""
FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together's
    "length": "length",
    "model_length": "length",  # Mistral's: the context is full
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",  # OpenAI's, before there were tools
    "content_filter": "content_filter",
}

Json = dict[str, Any]


class EventStreamReader:
    """Server-sent events out of the bytes of a response, however these are cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The payloads of the events that are whole now; comments and other fields are left out."""
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            # llama.cpp has sent errors in a field of that name.
            if line.startswith((b"data:", b"error:")):
                self._data.append(line.partition(b":")[2].strip())
            elif self._data and line in (b"", b"\r"):
                yield b"\n".join(self._data)
                self._data.clear()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EngineError("the engine sent an event that does not end")


async def read_chunks(content: aiohttp.StreamReader) -> AsyncIterator[Json]:
    """The chunks of a streamed answer, up to `[DONE]` or the end of the response.

    Raises `EngineError` for what is no JSON object; aiohttp's own errors pass.
    """
    reader = EventStreamReader()
    while received := await content.readany():
        for payload in reader.feed(received):
            if payload == b"[DONE]":
                await _await_end(content)
                return
            yield load_object(payload)
    # Some hosts end without the last empty line.
    for payload in reader.feed(b"\n\n"):
        if payload != b"[DONE]":
            yield load_object(payload)


async def _await_end(content: aiohttp.StreamReader) -> None:
    if not content.at_eof():
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(LAST_BYTES_S):
                while await content.readany():
                    pass


def load_object(payload: bytes) -> Json:
    """A JSON object, or `EngineError`."""
    try:
        chunk = orjson.loads(payload)
    except ValueError:
        raise EngineError("the engine sent something that is no JSON") from None
    if not isinstance(chunk, dict):
        raise EngineError("the engine sent JSON that is no object")
    return chunk


class ChunkReader:
    """Turns the chunks of one request into events. num_choices: as many answers as were asked for.

    Give every chunk to `feed`, then call `end` once. Whole answers (`message` in the place of
    `delta`) are read as well, from hosts that do not stream.
    """

    def __init__(self, *, num_choices: int = 1) -> None:
        self._num_choices = num_choices
        self._choices: dict[int, _ChoiceReader] = {}
        self._usage: Usage | None = None
        self._begun = False

    def feed(self, chunk: Json) -> list[Event]:
        """The events of one chunk, without `Usage`, which `end` tells.

        Raises what an error in the stream amounts to, as `Engine.complete` has it: `RequestRefused`
        only before the first event.
        """
        error = find_error(chunk)
        if error is not None:
            raise read_error(error, status=None, begun=self._begun)
        events: list[Event] = []
        for choice in chunk.get("choices") or ():
            index = choice.get("index") or 0
            reader = self._choices.get(index)
            if reader is None:
                reader = self._choices[index] = _ChoiceReader(index)
            reader.feed(choice, events)
        usage = chunk.get("usage")
        if usage:  # in each chunk from some hosts, growing
            self._usage = _read_usage(usage) or self._usage
        self._begun = self._begun or bool(events)
        return events

    def end(self) -> list[Event]:
        """`Usage`, or nothing from hosts that do not count.

        Raises `EngineUnavailable` where an answer has not ended: the engine went away.
        """
        num_ended = sum(reader.ended for reader in self._choices.values())
        if num_ended < self._num_choices:
            raise EngineUnavailable("the engine broke the answer off")
        return [self._usage] if self._usage is not None else []


class _ChoiceReader:
    """One answer of a request."""

    def __init__(self, index: int) -> None:
        self.ended = False
        self._index = index
        self._calls = CallReader(index)
        self._untold_logprobs: tuple[TokenLogprob, ...] = ()

    def feed(self, choice: Json, events: list[Event]) -> None:
        """Append the events of one chunk's part for this answer."""
        if self.ended:  # some hosts repeat the last part beside the usage
            return
        delta = choice.get("delta") or choice.get("message") or {}
        logprobs = choice.get("logprobs")
        if logprobs:
            # Tokens within a character have no text yet: theirs go with the character.
            self._untold_logprobs += _read_logprobs(logprobs)
        text = delta.get("content") or delta.get("refusal")
        if text:
            self._put_text(text if isinstance(text, str) else _text_of_parts(text), events)
        if delta.get("tool_calls"):
            self._untold_logprobs = ()
            for call in delta["tool_calls"]:
                self._calls.feed(call, events)
        elif delta.get("function_call"):
            self._calls.feed({"index": 0, "function": delta["function_call"]}, events)
        reason = choice.get("finish_reason")
        if reason:
            self._end(reason, events)

    def _put_text(self, text: str, events: list[Event]) -> None:
        if text:
            logprobs, self._untold_logprobs = self._untold_logprobs, ()
            events.append(TextDelta(text=text, choice=self._index, logprobs=logprobs))

    def _end(self, reason: str, events: list[Event]) -> None:
        if reason == "abort":  # vLLM's, which is about to end
            raise EngineUnavailable("the engine gave the answer up")
        known = FINISH_REASONS.get(reason)
        if known is None:
            raise EngineError(f"the engine ended the answer with the reason {reason!r}")
        self._calls.end(events)
        if known == "stop" and self._calls.num_calls:
            known = "tool_calls"  # OpenAI and vLLM say `stop` where the function was forced
        self.ended = True
        events.append(ChoiceEnd(reason=known, choice=self._index))


def _text_of_parts(parts: list[Json]) -> str:
    """The text of content in parts, as Mistral's hosts send it; thoughts and references go."""
    return "".join(part.get("text") or "" for part in parts if part.get("type") == "text")


def _read_logprobs(logprobs: Json) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token=entry["token"],
            utf8=_utf8(entry),
            logprob=entry["logprob"],
            top=tuple(
                Alternative(token=other["token"], utf8=_utf8(other), logprob=other["logprob"])
                for other in entry.get("top_logprobs") or ()
            ),
        )
        for entry in logprobs.get("content") or ()
    )


def _utf8(entry: Json) -> bytes:
    given = entry.get("bytes")
    return entry["token"].encode() if given is None else bytes(given)


def _read_usage(usage: Json) -> Usage | None:
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion)
