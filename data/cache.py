"""Where downloaded and converted files are kept, and how a folder comes into being whole."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import UserError

WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


def cache_folder() -> Path:
    """The cache: `TUNERY_CACHE`, else `$XDG_CACHE_HOME/tunery`, else `~/.cache/tunery`."""
    named = os.environ.get("TUNERY_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tunery"


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final` that takes its name only if the block succeeds.

    Whatever stood at `final` stays until then. A killed block leaves `final` untouched; its
    leftover is removed by the next one. A full disk or a missing permission is a `UserError`.
    """
    partial = final.with_name(f".{final.name}.partial")
    old = final.with_name(f".{final.name}.old")
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                flush_to_disk(file)
        _remove(old)
        if final.exists():
            final.rename(old)
        partial.rename(final)
        _remove(old)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
            raise disk_error(error, final) from error
        raise


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time make a cache `folder`; the others wait, then find it there."""
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / folder.name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def disk_error(error: OSError, path: Path) -> UserError:
    """What to tell the user when `path` could not be written."""
    return UserError(
        f"cannot write: {error.strerror or error}",
        where=path,
        remedy="free some disk space or check the permissions; nothing half-written was kept",
    )


def flush_to_disk(file: Path) -> None:
    """Return when the file's bytes are on the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
