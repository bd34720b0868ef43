import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from configs.errors import UserError
from serve.engine import EngineUnavailable, TextDelta
from tests.serve.engines.asking import MODEL, new_engine, request, running, text, user

ENDLESS = request(user("river"))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither processes nor folders outlive a test."""
    # Not pytest's own folder: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="left-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield
        assert not list(Path(folder).iterdir())
    assert not children()


def children() -> list[psutil.Process]:
    """This process's own that hold a model."""
    found = psutil.Process().children()  # a server that other tests share has its own
    alive = [one for one in found if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in alive if "serve.llama_process" in one.cmdline()]


async def until(condition: object, timeout_s: float = 10.0) -> float:
    """Wait until a function says so; how long that took."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def test_a_child_that_dies_is_replaced_and_its_requests_end_at_once(tiny_gguf: Path) -> None:
    async def kill_and_ask() -> None:
        asked = request(user("river"), max_tokens=5)
        async with running(tiny_gguf, context_length=8192) as engine:
            expected = await text(engine, asked)
            running_one = engine.complete(ENDLESS)
            assert isinstance(await anext(running_one), TextDelta)
            (child,) = children()
            killed = time.monotonic()
            child.kill()
            with pytest.raises(EngineUnavailable) as error:
                async for _ in running_one:
                    pass
            assert time.monotonic() - killed < 0.5
            assert error.value.retry_after_s > 0
            await until(lambda: not engine.ready)
            with pytest.raises(EngineUnavailable):
                await anext(engine.complete(asked))
            await until(lambda: engine.ready)
            assert engine.num_restarts == 1
            assert await text(engine, asked) == expected

    asyncio.run(kill_and_ask())


def test_a_silent_child_is_killed_and_replaced(tiny_gguf: Path) -> None:
    async def stop_and_ask() -> None:
        async with running(tiny_gguf, context_length=8192, silence_s=0.5) as engine:
            endless = engine.complete(ENDLESS)
            assert isinstance(await anext(endless), TextDelta)
            (child,) = children()
            child.suspend()
            stopped = time.monotonic()
            with pytest.raises(EngineUnavailable, match=r"said nothing for 0\.5 seconds"):
                async for _ in endless:
                    pass
            assert 0.4 < time.monotonic() - stopped < 1.5
            assert not child.is_running()
            await until(lambda: engine.ready)
            assert await text(engine, request(user("river"), max_tokens=1))

    asyncio.run(stop_and_ask())


def test_a_child_that_is_silent_from_the_first_byte_on_is_replaced(tiny_gguf: Path) -> None:
    async def stop_and_ask() -> None:
        async with running(tiny_gguf, silence_s=0.5) as engine:
            children()[0].suspend()
            with pytest.raises(EngineUnavailable):
                await anext(engine.complete(ENDLESS))
            await until(lambda: engine.ready)
            assert engine.num_restarts == 1

    asyncio.run(stop_and_ask())


def test_close_ends_a_running_answer(tiny_gguf: Path) -> None:
    async def close_while_running() -> None:
        async with running(tiny_gguf, context_length=8192) as engine:
            endless = engine.complete(ENDLESS)
            await anext(endless)
            started = time.monotonic()
            await engine.close()
            assert time.monotonic() - started < 1
            with pytest.raises(EngineUnavailable):
                async for _ in endless:
                    pass
            assert not engine.ready
            with pytest.raises(EngineUnavailable, match="closed"):
                await anext(engine.complete(ENDLESS))

    asyncio.run(close_while_running())


@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.1])
def test_close_while_it_loads_ends_the_load(tiny_gguf: Path, pause_s: float) -> None:
    async def close_while_loading() -> None:
        engine = new_engine(tiny_gguf)
        loading = asyncio.create_task(engine.start())
        await asyncio.sleep(pause_s)
        assert not engine.ready
        await engine.close()
        await engine.close()
        with pytest.raises(EngineUnavailable):
            await loading
        assert not engine.ready

    asyncio.run(close_while_loading())


def test_close_between_an_end_and_the_restart(tiny_gguf: Path) -> None:
    async def close_while_down() -> None:
        async with running(tiny_gguf) as engine:
            children()[0].kill()
            await until(lambda: not engine.ready)
            await engine.close()

    asyncio.run(close_while_down())


def test_start_tells_what_was_wrong(tiny_gguf: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_gguf.read_bytes()[:50_000])

    async def start(model: Path) -> None:
        await new_engine(model).start()

    with pytest.raises(UserError, match="does not exist"):
        asyncio.run(start(tmp_path / "missing.gguf"))
    with pytest.raises(UserError, match="not a GGUF file"):
        asyncio.run(start(Path(__file__)))
    with pytest.raises(UserError, match=r"it said:\n.*(?s:.)*could not load the model"):
        asyncio.run(start(broken))


def test_what_llama_cpp_says_is_kept(tiny_gguf: Path, tmp_path: Path) -> None:
    broken, log = tmp_path / "broken.gguf", tmp_path / "logs" / "llama.log"
    broken.write_bytes(tiny_gguf.read_bytes()[:50_000])

    async def start() -> None:
        await new_engine(broken, log=log).start()

    with pytest.raises(UserError):
        asyncio.run(start())
    assert "could not load the model" in log.read_text()


GATEWAY = f"""
import asyncio, sys
from pathlib import Path
from serve.engines.llamacpp import LlamaCppEngine

async def main():
    engine = LlamaCppEngine(
        Path(sys.argv[1]), model={MODEL!r}, num_threads=1, context_length=256, num_slots=1
    )
    await engine.start()
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_gateway_that_is_killed_leaves_nothing_behind(tiny_gguf: Path) -> None:
    assert tempfile.tempdir is not None
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(tiny_gguf)],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": tempfile.tempdir},
    )
    assert gateway.stdout is not None
    assert gateway.stdout.readline() == b"ready\n"
    (child,) = psutil.Process(gateway.pid).children()
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    gateway.stdout.close()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running()
