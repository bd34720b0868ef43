"""The worker processes of a cluster that this process, or one that it started, has started."""

import signal

import psutil


def kill_a_worker(name: str) -> None:
    """SIGKILL for a worker that does what Ray calls by this name, such as `ray::_attempt`."""
    for process in psutil.Process().children(recursive=True):
        if name in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
            return
    raise AssertionError(f"no process {name}")
