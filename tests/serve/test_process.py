"""Server processes do what they were started for and never outlive who started them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import psutil
import pytest

from configs.errors import UserError
from serve.process import start_server


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still running"
        time.sleep(0.02)


def test_the_server_answers_within_the_block_and_is_gone_after_it(
    serve_command: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "server.log"
    with start_server(serve_command, timeout_s=60, log=log) as server:
        assert is_running(server.pid)
        assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    assert not is_running(server.pid)
    assert "answers at" in log.read_text()


def test_the_server_is_gone_after_a_block_that_fails(
    serve_command: list[str], tmp_path: Path
) -> None:
    pid = 0
    with (
        pytest.raises(KeyError),
        start_server(serve_command, timeout_s=60, log=tmp_path / "server.log") as server,
    ):
        pid = server.pid
        raise KeyError
    assert pid
    assert not is_running(pid)


def test_a_server_that_dies_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    script = "import sys; print('first'); print('no luck', file=sys.stderr); sys.exit(3)"
    command = [sys.executable, "-c", script]
    with pytest.raises(UserError) as error, start_server(command, timeout_s=30, log=log):
        pass
    assert "ended with code 3" in error.value.what
    assert "    no luck" in error.value.what
    assert error.value.where == str(log)


def test_a_server_that_is_too_slow_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"""
        import os, time
        from pathlib import Path
        Path({str(pid_file)!r}).write_text(str(os.getpid()))
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with (
        pytest.raises(UserError, match="not ready within 1 seconds"),
        start_server(command, timeout_s=1, log=tmp_path / "server.log"),
    ):
        pass
    assert not is_running(int(pid_file.read_text()))


def test_a_killed_parent_leaves_no_server_behind(serve_command: list[str], tmp_path: Path) -> None:
    script = f"""
        import sys, time
        from pathlib import Path
        from serve.process import start_server
        log = Path({str(tmp_path / "server.log")!r})
        with start_server({serve_command!r}, timeout_s=60, log=log) as server:
            print(server.pid, flush=True)
            time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    server_pid = int(parent.stdout.readline())
    assert is_running(server_pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    try:
        wait_until_gone(server_pid, 3)
    finally:
        if is_running(server_pid):
            os.kill(server_pid, signal.SIGKILL)
