"""vLLM in an environment and a process of its own, reached through a private unix socket."""

import asyncio
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

from configs.errors import UserError
from configs.serve_schema import VllmConfig
from serve.engine import (
    ChoiceEnd,
    Completion,
    ContextExceeded,
    EngineError,
    EngineModel,
    EngineUnavailable,
    Events,
    RequestRefused,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from serve.engines import watched_command
from serve.engines.supervisor import Supervisor
from serve.engines.vllm_command import (
    MAX_REQUESTS,
    VllmFacts,
    build_arguments,
    build_environment,
    find_command,
    read_facts,
)
from serve.engines.wire_body import build_body, with_mistral_ids
from serve.engines.wire_client import WireClient
from serve.engines.wire_errors import RefusedByHost
from serve.llama_process import last_words
from serve.socket_folder import make_socket_folder

LOAD_TIMEOUT_S = 1800.0
"""A 24B model from a slow disk, and its graphs compiled, take minutes."""
POLL_S = 0.2
OK = 200


class VllmChild:
    """A vLLM that answers."""

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, log: Path, client: WireClient
    ) -> None:
        self.client = client
        self._process = process
        self._folder = folder
        self._log = log

    @property
    def pid(self) -> int:
        """The process that watches over vLLM's."""
        return self._process.pid

    async def wait(self) -> str:
        """See `Child.wait`."""
        code = await self._process.wait()
        return f"it ended with code {code}; it said:\n{last_words(self._log)}"

    async def end(self) -> None:
        """See `Child.end`; vLLM gets some seconds to let go of the cards."""
        await self.client.close()
        await _end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


class VllmEngine:
    """A folder of safetensors, answered by `vllm serve`.

    artefact: W4A16 (compressed-tensors) or bf16, with its chat template; model: its name;
    context_length: tokens of prompt and answer together, cut to what the model was trained for;
    adapters: PEFT folders on this base by model name; silence_s: seconds without a sign after which
    a request is given up; log: where all that vLLM says is kept; cards:
    its `CUDA_VISIBLE_DEVICES`, this process's own when None; on_end: told of each end of vLLM
    that was not asked for.
    """

    def __init__(
        self,
        artefact: Path,
        *,
        model: str,
        config: VllmConfig,
        context_length: int,
        adapters: Mapping[str, Path] | None = None,
        silence_s: float = 300.0,
        log: Path | None = None,
        cards: str | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._cards = cards
        self._artefact = artefact
        self._names = (model, *(adapters or {}))
        self._config = config
        self._context_length = context_length
        self._adapters = adapters or {}
        self._silence_s = silence_s
        self._log = log
        self._facts: VllmFacts | None = None
        self._supervisor = Supervisor(self._launch, name="vLLM", on_end=on_end)

    @property
    def models(self) -> tuple[EngineModel, ...]:
        """The base first, then one for each adapter."""
        takes_images = self._facts is not None and self._facts.takes_images
        return tuple(
            EngineModel(name=name, context_length=self._context_length, takes_images=takes_images)
            for name in self._names
        )

    @property
    def capacity(self) -> int:
        """See `Engine.capacity`."""
        return MAX_REQUESTS

    @property
    def ready(self) -> bool:
        """See `Engine.ready`."""
        return self._supervisor.ready

    @property
    def num_restarts(self) -> int:
        """Times that vLLM was started again after it had ended."""
        return self._supervisor.num_restarts

    async def start(self) -> None:
        """See `Engine.start`."""
        self._facts = read_facts(self._artefact)
        if self._facts.max_context is not None:
            self._context_length = min(self._context_length, self._facts.max_context)
        await self._supervisor.start()

    async def complete(self, request: Completion) -> Events:
        """See `Engine.complete`."""
        child, facts = self._supervisor.child, self._facts
        assert facts is not None, "there is no child before `start`"
        if request.tools and request.tool_choice == "auto" and facts.tool_parser is None:
            raise RequestRefused("the model's chat template calls no tools", field="tools")
        # vLLM wants several answers drawn by chance; at temperature 0 they are one.
        num_copies = request.num_choices if request.temperature == 0 else 1
        asked = replace(request, num_choices=request.num_choices // num_copies)
        if facts.tool_parser == "mistral":
            asked = replace(asked, messages=with_mistral_ids(asked.messages))
        events = child.client.answer(build_body(asked), num_choices=asked.num_choices)
        try:
            async with aclosing(_copied(events, num_copies)) as answer:
                async for event in answer:
                    yield event
        except (RefusedByHost, ContextExceeded) as refusal:
            raise await self._counted(refusal, asked, child) from None
        except EngineUnavailable:
            if await child.client.status("/health") != OK:
                await self._supervisor.give_up(child, "it is not healthy any more")
            raise

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._supervisor.close()

    async def _counted(
        self, refusal: RequestRefused, request: Completion, child: VllmChild
    ) -> RequestRefused:
        """The refusal of a long prompt with its real length: vLLM counts one token too many, then
        stops."""
        if isinstance(refusal, RefusedByHost) and not refusal.too_long:
            return refusal
        body = build_body(request)
        told = ("model", "messages", "tools")
        kept = {name: value for name, value in body.items() if name in told}
        with suppress(EngineError, RequestRefused):
            count = (await child.client.ask("/tokenize", kept)).get("count")
            if isinstance(count, int) and count >= self._context_length:
                return ContextExceeded(prompt_tokens=count, context_length=self._context_length)
        return refusal

    async def _launch(self) -> VllmChild:
        """Start vLLM and wait until it answers; leaves nothing behind where that fails."""
        assert self._facts is not None
        command = find_command(self._config)
        folder = make_socket_folder()
        try:
            key = secrets.token_hex(16)
            arguments = build_arguments(
                self._artefact,
                self._facts,
                model=self._names[0],
                config=self._config,
                context_length=self._context_length,
                adapters=self._adapters,
                socket=folder / "vllm.sock",
            )
            log = self._log or folder / "vllm.log"
            environment = build_environment(os.environ, program=command[0], key=key)
            if self._cards is not None:
                environment["CUDA_VISIBLE_DEVICES"] = self._cards
            process = await _start([*command, *arguments], environment, folder, log)
            client = WireClient(
                "http://vllm",
                chat_path="/v1/chat/completions",
                key=key,
                socket=folder / "vllm.sock",
                silence_s=self._silence_s,
            )
            child = VllmChild(process, folder, log, client)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            await self._wait_until_ready(child)
        except BaseException:
            await asyncio.shield(child.end())
            raise
        return child

    async def _wait_until_ready(self, child: VllmChild) -> None:
        ended = asyncio.ensure_future(child.wait())
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                while await child.client.status("/health") != OK:
                    done, _ = await asyncio.wait([ended], timeout=POLL_S)
                    if done:
                        raise self._start_error(ended.result())
        except TimeoutError:
            raise self._start_error(f"it was not ready after {LOAD_TIMEOUT_S:g} seconds") from None
        finally:
            ended.cancel()

    def _start_error(self, said: str) -> UserError:
        return UserError(
            f"vLLM could not load the model: {said}",
            where=self._artefact,
            remedy="mend what its last lines name; less memory is needed with a smaller "
            "`serve.context_length`, more is there with a larger `serve.engine.memory_share` "
            "or with `serve.engine.tensor_parallel` over several cards",
        )


async def _copied(events: Events, num_copies: int) -> Events:
    """Each event once for every one of several equal answers, which all count."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Usage):
                yield replace(event, completion_tokens=event.completion_tokens * num_copies)
                continue
            for choice in range(num_copies):
                yield event if choice == 0 else _of_choice(event, choice)


def _of_choice(
    event: TextDelta | ToolCallDelta | ChoiceEnd, choice: int
) -> TextDelta | ToolCallDelta | ChoiceEnd:
    return replace(event, choice=choice)


async def _start(
    command: list[str], environment: Mapping[str, str], folder: Path, log: Path
) -> asyncio.subprocess.Process:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", watched_command.__file__, str(folder), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C is for this process, which then ends the child
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 2 * watched_command.GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
