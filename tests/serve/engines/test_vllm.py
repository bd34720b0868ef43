"""How vLLM's process is started, watched and ended, tried with the stand-in of `llama_as_vllm`."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from configs.errors import UserError
from configs.serve_schema import VllmConfig
from serve.engine import Completion, ContextExceeded, EngineUnavailable, RequestRefused
from serve.engines import vllm, watched_command
from serve.engines.vllm import VllmEngine
from tests.serve.engines.asking import ask, user
from tests.serve.engines.contract import tool
from tests.serve.engines.llama_as_vllm import START_LOG

STAND_IN = [sys.executable, "-m", "tests.serve.engines.llama_as_vllm"]
ASKED = Completion(model="mine", messages=(user("the river"),), temperature=0, max_tokens=3)


@pytest.fixture
def folder(tiny_gguf: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "w4a16"
    folder.mkdir()
    shutil.copy(tiny_gguf, folder / "tiny.gguf")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def new_engine(folder: Path, **options: object) -> VllmEngine:
    given = {"config": VllmConfig(kind="vllm", command=STAND_IN), "context_length": 4096} | options
    return VllmEngine(folder, model="mine", **given)  # type: ignore[arg-type]


@asynccontextmanager
async def running(folder: Path, **options: object) -> AsyncIterator[VllmEngine]:
    engine = new_engine(folder, **options)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def processes(folder: Path) -> list[psutil.Process]:
    """All that runs for a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        told = process.info["cmdline"] or []
        if str(folder) in told and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_context_is_cut_to_what_the_model_was_trained_for(folder: Path) -> None:
    async def check() -> None:
        async with running(folder) as engine:
            assert engine.models[0].context_length == 512
            with pytest.raises(ContextExceeded) as caught:
                await ask(engine, replace(ASKED, messages=(user("the river " * 600),)))
            assert caught.value.context_length == 512

    asyncio.run(check())


def test_closing_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    async def check() -> None:
        async with running(folder) as engine:
            assert len(processes(folder)) == 2
            (socket,) = {part for part in processes(folder)[0].cmdline() if "vllm.sock" in part}
            assert Path(socket).exists()
            assert Path(socket).parent.stat().st_mode & 0o077 == 0
            assert engine.ready
        assert not Path(socket).parent.exists()

    asyncio.run(check())
    assert processes(folder) == []


def test_nobody_else_can_ask_it(folder: Path) -> None:
    async def check() -> None:
        async with running(folder):
            told = processes(folder)
            (socket,) = {part for part in told[0].cmdline() if "vllm.sock" in part}
            command = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "--unix-socket"]
            command += [socket, "-d", "{}", "http://x/v1/chat/completions"]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            output, _ = await process.communicate()
            assert output == b"401"
            keys = {process.environ()["VLLM_API_KEY"] for process in told}
            assert len(keys) == 1
            assert not any(key in " ".join(process.cmdline()) for key in keys for process in told)

    asyncio.run(check())


def test_what_it_says_when_it_cannot_start_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "tiny.gguf").unlink()
    log = tmp_path / "vllm.log"

    async def check() -> None:
        engine = new_engine(folder, log=log)
        with pytest.raises(UserError, match="no safetensors here") as caught:
            await engine.start()
        assert caught.value.where == str(folder)
        assert not engine.ready
        with pytest.raises(EngineUnavailable):
            await ask(engine, ASKED)
        await engine.close()

    asyncio.run(check())
    assert "no safetensors here" in log.read_text()
    assert processes(folder) == []


def test_options_that_it_does_not_know_are_told(folder: Path) -> None:
    async def check() -> None:
        config = VllmConfig(kind="vllm", command=STAND_IN, further_arguments=["--no-such-thing"])
        with pytest.raises(UserError, match="--no-such-thing"):
            await new_engine(folder, config=config).start()

    asyncio.run(check())


def test_a_start_that_takes_too_long_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "LOAD_TIMEOUT_S", 0.5)
    monkeypatch.setattr(watched_command, "GRACE_S", 0.5)

    async def check() -> None:
        config = VllmConfig(kind="vllm", command=["sh", "-c", "exec sleep 60"])
        with pytest.raises(UserError, match=r"not ready after 0\.5 seconds"):
            await new_engine(folder, config=config).start()

    asyncio.run(check())


def test_closing_while_it_loads(folder: Path) -> None:
    async def check() -> None:
        config = VllmConfig(kind="vllm", command=["sh", "-c", "exec sleep 60", str(folder)])
        engine = new_engine(folder, config=config)
        starting = asyncio.ensure_future(engine.start())
        await asyncio.sleep(0.3)
        await engine.close()
        with pytest.raises(EngineUnavailable):
            await starting

    asyncio.run(check())
    assert processes(folder) == []


def test_it_ends_with_whoever_started_it(folder: Path) -> None:
    """However that ends: nothing of it runs on, and its private folder is gone."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.serve.engines.test_vllm import new_engine\n"
        "async def main():\n"
        "    await new_engine(Path(sys.argv[1])).start()\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"ready\n"
        started = [one for one in processes(folder) if one.pid != gateway.pid]
        assert len(started) == 2
        (socket,) = {part for part in started[0].cmdline() if "vllm.sock" in part}
        gateway.kill()
    wait_until(lambda: processes(folder) == [])
    wait_until(lambda: not Path(socket).parent.exists())


def test_each_end_is_told_and_counted(folder: Path) -> None:
    ends: list[int] = []

    async def check() -> None:
        async with running(folder, on_end=lambda: ends.append(1)) as engine:
            pid = int((folder / START_LOG).read_text().split()[-1])
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(10):
                while engine.num_restarts < 1:
                    await asyncio.sleep(0.05)
            assert (await ask(engine, ASKED)).usage.completion_tokens == 3

    asyncio.run(check())
    assert ends == [1]
    assert len((folder / START_LOG).read_text().split()) == 2


def test_tools_that_the_template_cannot_call_are_refused(folder: Path) -> None:
    async def check() -> None:
        async with running(folder) as engine:
            with pytest.raises(RequestRefused) as caught:
                await ask(engine, replace(ASKED, tools=(tool("find"),)))
            assert caught.value.field == "tools"

    asyncio.run(check())


def test_a_watched_command_passes_its_code_on() -> None:
    for script, code in (("exit 3", 3), ("kill -9 $$", 137)):
        command = [sys.executable, "-I", watched_command.__file__, "/no/such", "sh", "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as watcher:
            assert watcher.wait(5) == code


def test_a_watched_command_that_does_not_want_to_end_is_ended() -> None:
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(1, flush=True)\n"
        "time.sleep(60)\n"
    )
    runs = (
        f"import sys; sys.argv = ['', '/no/such', sys.executable, '-c', {script!r}]\n"
        "from serve.engines import watched_command\n"
        "watched_command.GRACE_S = 0.3\n"
        "sys.exit(watched_command.main(sys.argv[1], sys.argv[2:]))\n"
    )
    command = [sys.executable, "-c", runs]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"1\n"
        watcher.stdin.close()
        assert watcher.wait(5) == 137
