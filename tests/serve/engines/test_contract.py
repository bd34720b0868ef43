"""Every engine keeps the same contract: llama.cpp, another host, and vLLM where it is installed."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from configs.serve_schema import VllmConfig
from serve.access.commands import add_key
from serve.engine import Engine, EngineUnavailable
from serve.engines.llamacpp import LlamaCppEngine
from serve.engines.upstream import UpstreamEngine
from serve.engines.vllm import VllmEngine
from serve.process import start_interface, start_server
from tests.serve.conftest import MODEL, one_model
from tests.serve.engines.asking import ask
from tests.serve.engines.contract import CHECKS, Contract
from tests.serve.engines.tool_llama import build_tool_gguf
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE

CONTEXT = 4096
HOST_SLOTS = 3
RESTART_S = 15.0
KEY = "a-key-that-is-secret"
ENGINES = ("llamacpp", "upstream", "tunery", "vllm stand-in", "vllm")


@dataclass(frozen=True)
class Subject:
    """An engine that answers. kill: ends whatever answers behind it; comes_back: by itself;
    cannot: checks of what stands behind it, and not the engine, cannot do, and why.
    """

    contract: Contract
    kill: Callable[[], None]
    comes_back: bool
    cannot: Mapping[str, str] = field(default_factory=dict)


# What the engines ask for is tried with others; llama.cpp's own interface does not do it.
LLAMA_CANNOT = {"check_forced_tool": "llama.cpp's own interface forces no function"}


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def tool_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tool_gguf(tmp_path_factory.mktemp("tool"))


@pytest.fixture(scope="module")
def vllm_folder(tool_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stand-in loads, in a folder that says of itself what vLLM is told by."""
    folder = tmp_path_factory.mktemp("vllm") / "w4a16"
    folder.mkdir()
    shutil.copy(tool_gguf, folder / "tiny.gguf")
    config = {"model_type": "mistral", "max_position_embeddings": CONTEXT}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(MISTRAL_V7_TEMPLATE, folder / "chat_template.jinja")
    return folder


@pytest.fixture(scope="module", params=ENGINES)
def subject(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    openings = {
        "llamacpp": _open_llamacpp,
        "upstream": _open_upstream,
        "tunery": _open_tunery,
        "vllm stand-in": _open_stand_in,
        "vllm": _open_vllm,
    }
    stack = AsyncExitStack()
    opening = openings[request.param](request, tmp_path_factory.mktemp("log") / "engine.log")
    subject = runner.run(stack.enter_async_context(opening))
    try:
        yield subject
    finally:
        runner.run(stack.aclose())


@asynccontextmanager
async def _started(engine: Engine) -> AsyncIterator[None]:
    try:
        await engine.start()
        yield
    finally:
        await engine.close()


@asynccontextmanager
async def _open_llamacpp(request: pytest.FixtureRequest, log: Path) -> AsyncIterator[Subject]:
    engine = LlamaCppEngine(
        request.getfixturevalue("tool_gguf"),
        model="tiny",
        num_threads=1,
        context_length=CONTEXT,
        num_slots=1,
        log=log,
    )
    async with _started(engine):
        yield Subject(Contract(engine), lambda: _kill(_child_pid(engine)), comes_back=True)


@asynccontextmanager
async def _open_upstream(request: pytest.FixtureRequest, log: Path) -> AsyncIterator[Subject]:
    command = [sys.executable, "-m", "tests.serve.engines.llama_host"]
    command += [str(request.getfixturevalue("tool_gguf")), "--key", KEY]
    command += ["--context", str(CONTEXT), "--slots", str(HOST_SLOTS)]
    with ExitStack() as stack:
        host = stack.enter_context(start_server(command, timeout_s=60, log=log))
        engine = UpstreamEngine(
            base_url=f"{host.url}/v1", model="tiny", api_key=KEY, context_length=CONTEXT
        )
        async with _started(engine):
            # llama.cpp counts one of the answers.
            contract = Contract(engine, num_slots=HOST_SLOTS, counts_choices=False)
            yield Subject(
                contract,
                lambda: _kill(host.pid),
                comes_back=False,
                cannot=LLAMA_CANNOT,
            )


@asynccontextmanager
async def _open_tunery(request: pytest.FixtureRequest, log: Path) -> AsyncIterator[Subject]:
    """Another host that is this interface: all that one engine can reaches a client of it whole."""
    file = request.getfixturevalue("tool_gguf")
    keys = log.with_name("keys.json")
    key = add_key(keys, "contract")
    settings = one_model(file, context_length=CONTEXT, api_keys_path=keys)
    with ExitStack() as stack:
        host = stack.enter_context(start_interface(settings, timeout_s=60, log=log))
        engine = UpstreamEngine(
            base_url=f"{host.url}/v1", model=MODEL, api_key=key, context_length=CONTEXT
        )
        async with _started(engine):
            yield Subject(Contract(engine), lambda: _kill(host.pid), comes_back=False)


@asynccontextmanager
async def _open_stand_in(request: pytest.FixtureRequest, log: Path) -> AsyncIterator[Subject]:
    folder = request.getfixturevalue("vllm_folder")
    command = [sys.executable, "-m", "tests.serve.engines.llama_as_vllm"]
    engine = VllmEngine(
        folder,
        model="tiny",
        config=VllmConfig(kind="vllm", command=command),
        context_length=CONTEXT,
        log=log,
    )

    async with _started(engine):
        yield Subject(
            Contract(engine),
            lambda: _kill_children(_child_pid(engine)),
            comes_back=True,
            cannot=LLAMA_CANNOT | {"check_several_choices": "llama.cpp wants a slot for each"},
        )


@asynccontextmanager
async def _open_vllm(request: pytest.FixtureRequest, log: Path) -> AsyncIterator[Subject]:
    """The real one, on a random checkpoint."""
    if shutil.which("vllm") is None:
        pytest.skip("the command vllm is not installed")
    engine = VllmEngine(
        request.getfixturevalue("tiny_checkpoint"),
        model="tiny",
        config=VllmConfig(kind="vllm"),
        context_length=CONTEXT,
        log=log,
    )
    async with _started(engine):
        yield Subject(
            # More are answered at a time than could be held at once.
            Contract(engine),
            lambda: _kill_children(_child_pid(engine)),
            comes_back=True,
            cannot={"check_tools": "a random model calls none", "check_cancel": "it has no slots"},
        )


def _child_pid(engine: LlamaCppEngine | VllmEngine) -> int:
    return engine._supervisor.child.pid


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _kill_children(pid: int) -> None:
    """What a watched command runs, and not who watches it."""
    for child in psutil.Process(pid).children(recursive=True):
        child.kill()


@pytest.mark.parametrize("check", CHECKS)
def test_contract(subject: Subject, runner: asyncio.Runner, check: str) -> None:
    if check in subject.cannot:
        pytest.skip(subject.cannot[check])
    checked: Callable[[], Coroutine[None, None, None]] = getattr(subject.contract, check)
    runner.run(checked())


def test_whoever_waits_hears_of_its_end_and_it_comes_back(
    subject: Subject, runner: asyncio.Runner
) -> None:
    contract = subject.contract

    async def check() -> None:
        await contract.check_death_in_the_middle(subject.kill)
        if not subject.comes_back:
            return
        async with asyncio.timeout(RESTART_S):
            while True:
                with suppress(EngineUnavailable):
                    await ask(contract.engine, contract.request())
                    break
                await asyncio.sleep(0.05)
        assert contract.engine.ready
        await contract.check_text_and_usage()

    runner.run(check())


def test_closing_it_ends_what_runs(subject: Subject, runner: asyncio.Runner) -> None:
    engine, contract = subject.contract.engine, subject.contract

    async def check() -> None:
        if subject.comes_back:
            async with aclosing(engine.complete(contract.request(max_tokens=None))) as events:
                await anext(events)
                closing = asyncio.ensure_future(engine.close())
                async with asyncio.timeout(1):
                    with pytest.raises(EngineUnavailable):
                        async for _ in events:
                            pass
                await closing
        await engine.close()
        assert not engine.ready
        with pytest.raises(EngineUnavailable):
            await ask(engine, contract.request())

    runner.run(check())
