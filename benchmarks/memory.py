"""Peak memory of a command and all its processes."""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil


class Watched(NamedTuple):
    """What a command took: seconds, and the peak of its tree's resident memory in bytes."""

    seconds: float
    peak_bytes: int


def run_watched(command: Sequence[str]) -> Watched:
    """Run a command to its end, looking at its memory four times a second; leave if it fails."""
    started = time.monotonic()
    process = subprocess.Popen(command)
    root = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(root))
        time.sleep(0.25)
    if process.wait():
        sys.exit(f"{' '.join(command[:4])} … failed with status {process.returncode}")
    return Watched(time.monotonic() - started, peak)


def _resident(root: psutil.Process) -> int:
    total = 0
    try:
        for member in [root, *root.children(recursive=True)]:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return 0
    return total
