"""llama.cpp's server inside this process, through `xllamacpp`.

One thread per slot waits inside the C++ server (which releases the GIL) and hands each piece of
text to the event loop, so the loop itself never blocks.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import xllamacpp

from data.conversation import Message
from serve.engine import (
    Completion,
    ContextExceeded,
    EngineError,
    Event,
    Finish,
    RequestRefused,
    TextDelta,
)
from serve.llama_loading import load_llama_server
from serve.stop_strings import StopStrings

logger = logging.getLogger(__name__)

SCHEMA_FIELD = "response_format.json_schema.schema"


def default_num_threads() -> int:
    """One thread fewer than the cores this process may use, at least 1.

    llama.cpp's threads spin while they wait for each other: with one per core, a single other busy
    process brings generation to a halt.
    """
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    return max(1, num_cores - 1)


class LlamaCppEngine:
    """A GGUF model, answered with the chat template that is stored in the file.

    With one slot an answer depends on its request alone (for one machine, build and number of
    threads), whatever was asked before: see `_hold_prefix`. With more slots, requests share batches
    and llama.cpp's prompt cache, which is faster and reproducible only up to rounding.
    """

    def __init__(
        self, model_path: Path, *, num_threads: int, context_length: int, num_slots: int
    ) -> None:
        """Load the model, as `load_llama_server` does."""
        self._server, self._context_length = load_llama_server(
            model_path, num_threads=num_threads, context_length=context_length, num_slots=num_slots
        )
        self._num_slots = num_slots
        self._slots = asyncio.Semaphore(num_slots)
        self._workers = ThreadPoolExecutor(num_slots, thread_name_prefix="llama-slot")
        self._running: set[_Run] = set()
        self._held_prefix: tuple[Message, ...] = ()
        if self._context_length < context_length:
            logger.warning(
                "context length %d is more than the model was trained for; serving %d",
                context_length,
                self._context_length,
            )

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, per request."""
        return self._context_length

    async def complete(self, request: Completion) -> AsyncGenerator[Event, None]:
        """See `Engine.complete`; waits in line until one of the slots is free."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        run = _Run(loop)
        self._running.add(run)
        work = loop.run_in_executor(self._workers, self._answer, request, run)
        work.add_done_callback(lambda done: self._release(run, done))
        try:
            while True:
                event = await run.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Finish):
                    return
        finally:
            run.cancelled = True

    def close(self) -> None:
        """End running requests and free the model; blocks until that is done."""
        for run in list(self._running):
            run.cancelled = True
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._server = None

    def _release(self, run: "_Run", done: asyncio.Future[None]) -> None:
        self._running.discard(run)
        self._slots.release()
        if not done.cancelled() and (error := done.exception()):
            run.events.put_nowait(EngineError(repr(error)))

    def _answer(self, request: Completion, run: "_Run") -> None:
        """Runs in a slot's thread: put the request's events, or what went wrong, into `run`."""
        reader = _AnswerReader(run, request)
        try:
            cached = self._num_slots > 1 or self._hold_prefix(request, run)
            if not run.cancelled:
                body = _body(request, cached=cached, context_length=self._context_length)
                self._server.handle_chat_completions(body, reader.take)
        except (ValueError, RuntimeError) as error:
            run.put(_refusal(str(error)))
            return
        if not (reader.ended or run.cancelled):
            run.put(EngineError("llama.cpp broke the answer off without giving a reason"))

    def _hold_prefix(self, request: Completion, run: "_Run") -> bool:
        """Bring the slot's cache to exactly the turns before the last one; False if it cannot be.

        llama.cpp's own prompt cache starts wherever the previous prompt happened to differ, and a
        prompt evaluated in other pieces rounds differently: answers at temperature 0 then depend on
        what was asked before. Here the pieces depend on the request alone. The earlier turns are
        evaluated from nothing (or are still held), then cut back to their last token, which is
        evaluated again by itself in both cases.
        """
        prefix = request.messages[:-1]
        held = bool(prefix) and prefix == self._held_prefix
        self._held_prefix = ()
        if not prefix or not (held or self._evaluate(prefix, run, cached=False)):
            return False
        if not self._evaluate(prefix, run, cached=True):
            return False
        self._held_prefix = prefix
        return True

    def _evaluate(self, messages: tuple[Message, ...], run: "_Run", *, cached: bool) -> bool:
        """Evaluate turns without answering them; False when they are refused by themselves."""
        done = False

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal done
            done = "usage" in chunk
            return run.cancelled

        body = _common_fields(messages, cached=cached)
        try:
            self._server.handle_chat_completions(
                {**body, "add_generation_prompt": False, "max_tokens": 0}, take
            )
        except (ValueError, RuntimeError):
            return False  # the template may still take all the turns
        return done


class _Run:
    """One request's way from its slot's thread to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self.cancelled = False
        self._loop = loop

    def put(self, event: Event | Exception) -> None:
        """Called from the slot's thread."""
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class _AnswerReader:
    """Turns llama.cpp's streamed chunks into events."""

    def __init__(self, run: _Run, request: Completion) -> None:
        self.ended = False
        self._run = run
        self._stop = StopStrings(request.stop)
        self._reason = ""
        self._must_be_json = request.json_schema is not None
        self._texts: list[str] = []

    def take(self, chunk: dict[str, Any]) -> bool:
        """llama.cpp's callback for each chunk; True ends the work."""
        if self._run.cancelled:
            return True
        if "error" in chunk:
            self._run.put(_error(chunk["error"]))
            self.ended = True
            return True
        for choice in chunk["choices"]:
            self._put_text(self._stop.feed(choice["delta"].get("content") or ""))
            self._reason = choice["finish_reason"] or self._reason
        if self._stop.matched:
            self._finish("stop", chunk)
        elif "usage" in chunk:
            self._put_text(self._stop.rest())
            self._finish("length" if self._reason == "length" else "stop", chunk)
        return self.ended

    def _put_text(self, text: str) -> None:
        if text:
            self._texts.append(text)
            self._run.put(TextDelta(text))

    def _finish(self, reason: Literal["stop", "length"], chunk: dict[str, Any]) -> None:
        self.ended = True
        if self._must_be_json and reason == "stop" and not self._stop.matched:
            try:
                json.loads("".join(self._texts))
            except ValueError:
                # llama.cpp drops, in silence, a schema that nothing can satisfy.
                self._run.put(RequestRefused("the schema cannot be followed", field=SCHEMA_FIELD))
                return
        counts = chunk["timings"]
        self._run.put(
            Finish(
                reason=reason,
                prompt_tokens=counts["cache_n"] + counts["prompt_n"],
                completion_tokens=counts["predicted_n"],
            )
        )


def _common_fields(messages: tuple[Message, ...], *, cached: bool) -> dict[str, Any]:
    return {
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # calls back between prompt batches, so that they can be ended
        "timings_per_token": True,  # token counts in every chunk, for answers that we end
        "cache_prompt": cached,
    }


def _body(request: Completion, *, cached: bool, context_length: int) -> dict[str, Any]:
    """llama.cpp's request: its own samplers are off, so that only what was asked for applies."""
    body = _common_fields(request.messages, cached=cached) | {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        # Both count over the last 64 tokens, those of the prompt included: llama.cpp's way.
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    if request.max_tokens is not None:
        body["max_tokens"] = min(request.max_tokens, context_length)
    if request.seed is not None:
        # All ones means "draw one" to llama.cpp, so it is folded away with the larger seeds.
        body["seed"] = request.seed % 0xFFFFFFFF
    if request.json_schema is not None:
        # Not as `response_format`: llama.cpp then parses the answer again at its end, and fails
        # on one that `max_tokens` cut within a character.
        body["grammar"] = xllamacpp.json_schema_to_grammar(dict(request.json_schema))
    return body


def _refusal(message: str) -> RequestRefused:
    """What the binding raises when llama.cpp finds fault with a request before it runs."""
    _, from_template, reason = message.rpartition("Jinja Exception: ")
    if from_template:
        return RequestRefused(
            f"the model's chat template refuses the conversation: {reason}", field="messages"
        )
    return RequestRefused(f"llama.cpp refuses the request: {message}")


def _error(error: dict[str, Any]) -> Exception:
    if error["type"] == "exceed_context_size_error":
        return ContextExceeded(
            prompt_tokens=error["n_prompt_tokens"], context_length=error["n_ctx"]
        )
    if error["code"] == 400:
        return RequestRefused(error["message"])
    return EngineError(error["message"])
