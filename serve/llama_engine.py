"""llama.cpp's server inside this process, through `xllamacpp`.

One thread per slot waits inside the C++ server (which releases the GIL) and hands each piece of
text to the event loop, so the loop itself never blocks.
"""

import asyncio
import logging
import mmap
import os
import secrets
import tempfile
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import xllamacpp

from configs.errors import UserError
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
from serve.stop_strings import StopStrings

logger = logging.getLogger(__name__)

PROMPT_BATCH_TOKENS = 128
"""Prompt tokens evaluated between two looks at whether the client is still there.

Measured with SmolLM2-135M on one core: as fast as 512, and a cancelled prompt ends four times
sooner.
"""

HEADER_BYTES = 64 * 2**20
"""Where a GGUF's metadata ends at the latest: vocabularies are a few megabytes."""


def default_num_threads() -> int:
    """One thread fewer than the cores this process may use, at least 1.

    llama.cpp's threads spin while they wait for each other: with one per core, a single other busy
    process brings generation to a halt.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


class LlamaCppEngine:
    """A GGUF model, answered with the chat template that is stored in the file.

    With one slot an answer depends on its request alone (for one machine, build and number of
    threads), whatever was asked before: see `_hold_prefix`. With more slots, requests share batches
    and llama.cpp's prompt cache, which is faster and reproducible only up to rounding.
    """

    def __init__(
        self, model_path: Path, *, num_threads: int, context_length: int, num_slots: int
    ) -> None:
        """Load the model; blocks the whole interpreter until that is done.

        context_length: tokens of prompt and answer together per slot, cut to what the model was
        trained for. Raises `UserError` when the file is missing or is no usable GGUF.
        """
        _check_gguf(model_path)
        self._num_slots = num_slots
        self._slots = asyncio.Semaphore(num_slots)
        self._workers = ThreadPoolExecutor(num_slots, thread_name_prefix="llama-slot")
        self._running: set[_Run] = set()
        self._held_prefix: tuple[Message, ...] = ()
        self._server, self._context_length = _load_server(
            _parameters(
                model_path,
                num_threads=num_threads,
                context_length=context_length,
                num_slots=num_slots,
            ),
            model_path,
        )
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
        work.add_done_callback(lambda _: self._release(run))
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

    def _release(self, run: "_Run") -> None:
        self._running.discard(run)
        self._slots.release()

    def _answer(self, request: Completion, run: "_Run") -> None:
        """Runs in a slot's thread: put the request's events, or what went wrong, into `run`."""
        reader = _AnswerReader(run, StopStrings(request.stop))
        try:
            cached = self._num_slots > 1 or self._hold_prefix(request, run)
            if not run.cancelled:
                self._server.handle_chat_completions(_body(request, cached=cached), reader.take)
        except (ValueError, RuntimeError) as error:
            # The binding raises what llama.cpp finds wrong with a request before it runs: the
            # chat template's own refusals and JSON schemas that it cannot follow.
            run.put(RequestRefused(str(error)))
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

    def __init__(self, run: _Run, stop: StopStrings) -> None:
        self.ended = False
        self._run = run
        self._stop = stop
        self._reason = ""

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
            self._run.put(TextDelta(text))

    def _finish(self, reason: Literal["stop", "length"], chunk: dict[str, Any]) -> None:
        counts = chunk["timings"]
        self._run.put(
            Finish(
                reason=reason,
                prompt_tokens=counts["cache_n"] + counts["prompt_n"],
                completion_tokens=counts["predicted_n"],
            )
        )
        self.ended = True


def _common_fields(messages: tuple[Message, ...], *, cached: bool) -> dict[str, Any]:
    return {
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # calls back between prompt batches, so that they can be ended
        "timings_per_token": True,  # token counts in every chunk, for answers that we end
        "cache_prompt": cached,
    }


def _body(request: Completion, *, cached: bool) -> dict[str, Any]:
    """llama.cpp's request: its own samplers are off, so that only what was asked for applies."""
    body = _common_fields(request.messages, cached=cached) | {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.seed is not None:
        # All ones means "draw one" to llama.cpp, so it is folded away with the larger seeds.
        body["seed"] = request.seed % 0xFFFFFFFF
    if request.json_schema is not None:
        schema = {"schema": dict(request.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _error(error: dict[str, Any]) -> Exception:
    if error["type"] == "exceed_context_size_error":
        return ContextExceeded(
            prompt_tokens=error["n_prompt_tokens"], context_length=error["n_ctx"]
        )
    if error["code"] == 400:
        return RequestRefused(error["message"])
    return EngineError(error["message"])


def _check_gguf(model_path: Path) -> None:
    """Name the faults that llama.cpp only reports as one."""
    if not model_path.is_file():
        raise UserError(
            "the model file does not exist",
            where=model_path,
            remedy="give the path of a GGUF file, such as a run's artefacts/*.gguf",
        )
    with model_path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(
                "the model is not a GGUF file",
                where=model_path,
                remedy="give a GGUF file; `tunery merge` makes one of a trained run",
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"tokenizer.chat_template", 0, HEADER_BYTES) < 0:
                raise UserError(
                    "the GGUF file holds no chat template, so what the model expects is unknown",
                    where=model_path,
                    remedy="convert the model again, with a `chat_template` in its tokenizer",
                )


def _parameters(
    model_path: Path, *, num_threads: int, context_length: int, num_slots: int
) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(model_path)
    params.n_ctx = context_length * num_slots
    params.n_parallel = num_slots
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.cache_ram_mib = 0  # or gigabytes of old prompts are kept, and restored into slots
    params.use_jinja = True
    params.prefill_assistant = False  # a last assistant turn is a turn, not the answer's beginning
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.verbosity = 0
    params.ui = False
    return params


def _load_server(params: xllamacpp.CommonParams, model_path: Path) -> tuple[xllamacpp.Server, int]:
    """The running server and its context length per slot.

    llama.cpp also listens for HTTP, without any of the checks of this package: it gets a socket in
    a private folder and a secret key, and the socket goes as soon as the context length is read.
    """
    key = secrets.token_hex(16)
    params.api_keys = [key]
    params.n_threads_http = 1
    with tempfile.TemporaryDirectory(prefix="tunery-") as folder:
        socket_path = str(Path(folder) / "llama.sock")
        params.hostnames = [socket_path]
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise UserError(
                "llama.cpp could not load the model",
                where=model_path,
                remedy="check that the file is whole and that there is memory for it; "
                "`serve.context_length` and `serve.num_slots` decide what it needs besides",
            ) from error
        transport = httpx.HTTPTransport(uds=socket_path)
        with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {key}"}) as http:
            slots = http.get("http://llama/slots").raise_for_status().json()
    return server, slots[0]["n_ctx"]
