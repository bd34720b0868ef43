"""The default engine: llama.cpp in a child process, for CPUs, Macs and consumer cards."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import orjson

from data.tokens.mistral_images import ImageForm
from serve.engine import (
    Completion,
    EngineModel,
    EngineUnavailable,
    Event,
    Events,
    RequestRefused,
    Usage,
)
from serve.engines.llama_answer import AnswerReader
from serve.engines.llama_body import (
    Body,
    offered_tools,
    prefix_body,
    request_fields,
    seed_fields,
    shared_fields,
)
from serve.engines.llama_child import RETRY_AFTER_S, LlamaChild, LlamaFiles, launch_llama
from serve.engines.llama_images import fit_image, read_image_form
from serve.engines.llama_turns import Turn, Turns, find_form, image_urls, lay_out_turns
from serve.engines.supervisor import Supervisor
from serve.engines.wire import Json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Prepared:
    """A request in llama.cpp's words. lora: which adapters it is answered with."""

    turns: Turns
    body: Body
    lora: Body

    @property
    def digest(self) -> bytes:
        """What ids of calls are drawn from: the conversation, without its images."""
        return orjson.dumps([self.turns.tools, *map(_without_images, self.turns.all)])


class LlamaCppEngine:
    """A GGUF model, answered with the chat template that is stored in the file.

    With one slot an answer depends on its request alone (for one machine, build and number of
    threads), whatever was asked before: see `_hold_prefix`. With more slots, requests share batches
    and llama.cpp's prompt cache, which is faster and reproducible only up to rounding.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        model: str,
        num_threads: int,
        context_length: int,
        num_slots: int,
        mmproj: Path | None = None,
        adapters: Mapping[str, Path] | None = None,
        silence_s: float = 300.0,
        log: Path | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """model: the name that the GGUF answers under; mmproj: the GGUF of its vision tower;
        adapters: names of variants on it, and their GGUFs; silence_s: seconds without a sign of
        life after which llama.cpp is started anew; log: where all that it says is kept; on_end:
        told of each end of llama.cpp that was not asked for.
        """
        self._files = LlamaFiles(
            model=model_path,
            mmproj=mmproj,
            adapters=tuple((adapters or {}).values()),
            num_threads=num_threads,
            context_length=context_length,
            num_slots=num_slots,
            log=log,
        )
        self._names = (model, *(adapters or {}))
        self._silence_s = silence_s
        self._slots = asyncio.Semaphore(num_slots)
        self._supervisor = Supervisor(
            self._launch, name=f"llama.cpp ({model_path.name})", on_end=on_end
        )
        self._held: object = None
        self._image_form: ImageForm | None = None
        self._context_length: int | None = None
        self._takes_tools = True

    @property
    def models(self) -> tuple[EngineModel, ...]:
        """See `Engine.models`."""
        return tuple(
            EngineModel(
                name=name,
                context_length=self._context_length,
                takes_images=self._files.mmproj is not None,
                takes_tools=self._takes_tools,
            )
            for name in self._names
        )

    @property
    def capacity(self) -> int:
        """See `Engine.capacity`."""
        return self._files.num_slots

    @property
    def ready(self) -> bool:
        """See `Engine.ready`."""
        return self._supervisor.ready

    @property
    def num_restarts(self) -> int:
        """How often llama.cpp ended and was started again."""
        return self._supervisor.num_restarts

    async def start(self) -> None:
        """See `Engine.start`."""
        await self._supervisor.start()
        if self._files.mmproj is not None:
            self._image_form = await asyncio.to_thread(read_image_form, self._files.mmproj)
        facts = self._supervisor.child.facts
        if facts.context_length < self._files.context_length:
            logger.warning(
                "context length %d is more than the model was trained for; serving %d",
                self._files.context_length,
                facts.context_length,
            )

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._supervisor.close()

    async def complete(self, request: Completion) -> Events:
        """See `Engine.complete`; waits in line until one of the slots is free."""
        prepared = await self._prepare(request, self._supervisor.child)
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        async with self._slots:
            for choice in range(request.num_choices):
                body = prepared.body | seed_fields(request.seed, choice)
                reader = AnswerReader(request, choice, asked=prepared.digest)
                async with aclosing(self._answer(prepared, body, reader)) as events:
                    async for event in events:
                        yield event
                usage = Usage(
                    prompt_tokens=reader.usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens + reader.usage.completion_tokens,
                )
        yield usage

    async def _launch(self) -> LlamaChild:
        child = await launch_llama(self._files, silence_s=self._silence_s)
        self._held = None
        self._context_length = child.facts.context_length
        self._takes_tools = child.facts.takes_tools
        return child

    async def _prepare(self, request: Completion, child: LlamaChild) -> _Prepared:
        if request.model not in self._names:
            raise RequestRefused(f"there is no model {request.model}", field="model")
        if request.tools and not child.facts.takes_tools:
            raise RequestRefused("the model's chat template takes no tools", field="tools")
        fields = request_fields(request, context_length=child.facts.context_length)
        turns = lay_out_turns(
            request.messages,
            offered_tools(request),
            form=find_form(child.facts.chat_template),
            images=await self._fit_images(request),
        )
        lora = self._lora(request.model)
        body = shared_fields(turns.all, turns.tools) | fields | lora
        if turns.tools and request.tool_choice == "none":
            body["logit_bias"] = [[token, False] for token in child.facts.call_tokens]
        return _Prepared(turns, body, lora)

    async def _fit_images(self, request: Completion) -> dict[str, str]:
        found = image_urls(request.messages)
        if found and self._files.mmproj is None:
            raise RequestRefused("the model takes no images", field=found[0][0])
        if not found:
            return {}
        form = self._image_form
        return {
            url: await asyncio.to_thread(fit_image, url, form, field=field) for field, url in found
        }

    def _lora(self, model: str) -> Body:
        """Told in full: adapters that are not named keep what llama.cpp was started with."""
        names = self._names[1:]
        scales = [{"id": n, "scale": float(name == model)} for n, name in enumerate(names)]
        return {"lora": scales} if scales else {}

    async def _answer(
        self, prepared: _Prepared, body: Body, reader: AnswerReader
    ) -> AsyncGenerator[Event, None]:
        child = self._supervisor.child
        cached = self._files.num_slots > 1 or await self._hold_prefix(prepared, child)
        body["cache_prompt"] = cached
        async with aclosing(self._ask(child, body)) as chunks:
            async for chunk in chunks:
                for event in reader.feed(chunk):
                    yield event
                if reader.stopped:
                    return
        if not reader.ended:
            raise EngineUnavailable("llama.cpp broke the answer off", retry_after_s=RETRY_AFTER_S)

    async def _hold_prefix(self, prepared: _Prepared, child: LlamaChild) -> bool:
        """Bring the slot's cache to exactly the turns before the last one; False if it cannot be.

        llama.cpp's own prompt cache starts wherever the previous prompt happened to differ, and a
        prompt evaluated in other pieces rounds differently: answers at temperature 0 then depend on
        what was asked before. Here the pieces depend on the request alone. The earlier turns are
        evaluated from nothing (or are still held), then cut back to their last token, which is
        evaluated again by itself in both cases.
        """
        turns = prepared.turns
        prefix = (turns.prefix, turns.prefix_tools, prepared.lora)
        held = bool(turns.prefix) and prefix == self._held
        self._held = None
        if not turns.prefix or not (held or await self._evaluate(prepared, child, cached=False)):
            return False
        if not await self._evaluate(prepared, child, cached=True):
            return False
        self._held = prefix
        return True

    async def _evaluate(self, prepared: _Prepared, child: LlamaChild, *, cached: bool) -> bool:
        """Evaluate turns without answering them; False when they are refused by themselves."""
        body = prefix_body(prepared.turns) | prepared.lora | {"cache_prompt": cached}
        done = False
        try:
            async with aclosing(self._ask(child, body)) as chunks:
                async for chunk in chunks:
                    done = "usage" in chunk
        except RequestRefused:
            return False  # the template may still take all the turns
        return done

    async def _ask(self, child: LlamaChild, body: Body) -> AsyncGenerator[Json, None]:
        """llama.cpp's chunks, from a child that is ended where it is silent."""
        try:
            async with aclosing(child.chat(body)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except TimeoutError:
            why = f"it said nothing for {self._silence_s:g} seconds"
            await self._supervisor.give_up(child, why)
            raise EngineUnavailable(
                f"llama.cpp was ended: {why}", retry_after_s=RETRY_AFTER_S
            ) from None


def _without_images(turn: Turn) -> Turn:
    if isinstance(turn["content"], str):
        return turn
    return turn | {"content": [part for part in turn["content"] if part["type"] == "text"]}
