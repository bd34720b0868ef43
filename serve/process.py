"""A server as a child process, for programs that need one for a while and must not leave it behind.

The child watches its standard input, a pipe that only this process holds open: however this process
ends, even by `kill -9`, the pipe closes and the child stops.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from serve.settings import ServerSettings

POLL_S = 0.05
STOP_TIMEOUT_S = 10.0
"""Longer than the grace that the server gives to running requests."""
NUM_LOG_LINES = 15
"""Lines of the child's log that an error shows."""


@dataclass(frozen=True, kw_only=True)
class ServerProcess:
    """A server that answers. url: such as `http://127.0.0.1:40123`, without a path."""

    url: str
    pid: int


@contextmanager
def start_server(command: Sequence[str], *, timeout_s: float, log: Path) -> Iterator[ServerProcess]:
    """Run a serve command until the block ends, and yield once it answers.

    `--ready-file` and `--until-stdin-closes` are added to `command`, which understands them as
    `serve.server` does. All that the child says goes to `log`. Raises `UserError`, with the log's
    last lines, when the child ends or `timeout_s` passes before it is ready.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tunery-") as folder, log.open("wb") as output:
        ready_file = Path(folder) / "ready.json"
        child = subprocess.Popen(
            [*command, "--ready-file", str(ready_file), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for this process, which then ends the child
        )
        try:
            yield _wait_until_ready(child, ready_file, timeout_s=timeout_s, log=log)
        finally:
            _stop(child)


@contextmanager
def start_interface(
    settings: ServerSettings, *, timeout_s: float, log: Path
) -> Iterator[ServerProcess]:
    """Run the completion interface in a process of its own until the block ends.

    Arguments and errors as those of `start_server`; yields once its models have been loaded.
    """
    with tempfile.TemporaryDirectory(prefix="tunery-") as folder:
        file = Path(folder) / "settings.json"
        file.write_text(settings.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "serve.server", str(file)]
        with start_server(command, timeout_s=timeout_s, log=log) as server:
            yield server


def _wait_until_ready(
    child: subprocess.Popen[bytes], ready_file: Path, *, timeout_s: float, log: Path
) -> ServerProcess:
    deadline = time.monotonic() + timeout_s
    while not ready_file.exists():
        if child.poll() is not None:
            raise _start_error(f"the server ended with code {child.returncode}", log)
        if time.monotonic() > deadline:
            raise _start_error(f"the server was not ready within {timeout_s:g} seconds", log)
        time.sleep(POLL_S)
    ready = json.loads(ready_file.read_text(encoding="utf-8"))
    return ServerProcess(url=ready["url"], pid=ready["pid"])


def _start_error(what: str, log: Path) -> UserError:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LOG_LINES:]
    said = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    return UserError(
        f"{what}; it said:\n{said}", where=log, remedy="mend what the server's last lines name"
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdin is not None:
        child.stdin.close()
