"""Runs a command that must not outlive whoever started it: ends it once standard input closes.

The starter holds the other end of that pipe, which closes however it ends, even by `kill -9`. For
programs that do not watch it themselves. Needs nothing but Python's own library, and runs as a
file, so that the command's environment need not know this project.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0
"""Seconds between being asked to end and being ended, for all processes of the command."""


def main(folder: str, command: list[str]) -> int:
    """Run to the command's end, or to that of standard input; returns the command's exit code.

    folder: what the command keeps there goes with it where standard input ends first.
    """
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    alone = threading.Event()
    threading.Thread(target=_end_with_stdin, args=(child, alone), daemon=True).start()
    code = child.wait()
    _signal(child, signal.SIGKILL)  # what it has started itself, and left behind
    if alone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _end_with_stdin(child: "subprocess.Popen[bytes]", alone: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    alone.set()
    _signal(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
    _signal(child, signal.SIGKILL)


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
