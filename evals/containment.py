"""Keeps inspect inside the run directory: no files, settings or output of its own elsewhere.

Left alone, it keeps traces in the user's data folder, obeys `.env` files and INSPECT_*
variables (telemetry among them), installs itself as the process's log handler and prints.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import rich

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1,localhost,::1"
# inspect opens one trace file per process, below the first block's folder. When others reset the
# process's logging, as uvicorn does, it is opened again later, and the folder has to be there.
_trace_folder: Path | None = None


@contextmanager
def contained(folder: Path) -> Iterator[None]:
    """While the block runs, inspect's own files go below `folder` and nothing is printed.

    The environment and the log handlers are the process's own, so two blocks must not overlap.
    What this thread prints through rich's global console is withheld as well.
    """
    global _trace_folder
    own = folder.resolve() / ".inspect"
    _trace_folder = _trace_folder or own
    _trace_folder.mkdir(parents=True, exist_ok=True)
    # inspect sets the first one itself where a .env file names it.
    names = {"INSPECT_LOG_DIR", *(name for name in os.environ if name.startswith("INSPECT_"))}
    changes: dict[str, str | None] = {**dict.fromkeys(names), **_settings(own)}
    before = {name: os.environ.get(name) for name in changes}
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.addFilter(_divert)
    _change_environment(changes)
    try:
        with rich.get_console().capture() as output:
            yield
        if output.get().strip():
            logger.debug("inspect: %s", output.get().strip())
    finally:
        _change_environment(before)
        root.removeFilter(_divert)
        root.handlers[:] = handlers
        root.setLevel(level)


def _divert(record: logging.LogRecord) -> bool:
    """Drops what is logged on the root logger itself, as only inspect's display does."""
    logger.debug("inspect: %s", record.getMessage())
    return False


def _change_environment(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _settings(own: Path) -> dict[str, str]:
    # A proxy for the outside world must not stand between us and a model served on this machine.
    direct = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), LOOPBACK)
    return {
        "XDG_DATA_HOME": str(own),
        "XDG_CACHE_HOME": str(own),
        "INSPECT_TRACE_FILE": str(own / "trace.log"),
        "PYTHON_DOTENV_DISABLED": "1",
        # Where both spellings are set, clients take the small letters.
        "no_proxy": ",".join(part for part in direct if part),
    }
