"""Run directories in an object store: what a stage needs comes from there, what it made goes there.

Every fsspec URL will do. A folder that all nodes share (NFS) needs none of this: runs stand in it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from configs.errors import UserError

INDEX_FILE = "index.json"
"""What the store holds, written last: files that it does not name are not there yet."""
LAST = ("manifest.json",)
"""Files that speak of others, which therefore go first."""


class StoredFile(NamedTuple):
    """A file's size, and its time of change, by which a stage knows its own output."""

    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class RunStorage:
    """The runs below a URL such as `s3://bucket/runs`."""

    url: str

    def pull(self, run: Path) -> None:
        """Bring the folder to what the store holds of the run; nothing where it holds nothing.

        Errors: `UserError` where the store cannot be read.
        """
        stored = self._read_index(run.name)
        here = _files(run)
        for name in sorted(stored, key=_is_last):
            if here.get(name) != stored[name]:
                self._get(f"{run.name}/{name}", run / name, stored[name])
        for name in here.keys() - stored.keys() if stored else ():
            (run / name).unlink()

    def push(self, run: Path) -> None:
        """Bring what the store holds of the run to what the folder is.

        A reader sees the run as it was, or as it is now. Errors: as those of `pull`.
        """
        stored, here = self._read_index(run.name), _files(run)
        with self._told("written"):
            for name in sorted(here, key=_is_last):
                if stored.get(name) != here[name]:
                    self._put(run / name, f"{run.name}/{name}")
            self._system.pipe_file(self._path(f"{run.name}/{INDEX_FILE}"), _index_text(here))
            for name in stored.keys() - here.keys():
                self._system.rm_file(self._path(f"{run.name}/{name}"))

    @property
    def _system(self) -> Any:  # noqa: ANN401 - fsspec is untyped
        try:
            return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[0]
        except (ImportError, ValueError) as error:
            raise UserError(
                f"no storage of this kind: {error}",
                where=f"--storage {self.url}",
                remedy='give a folder, or install its fsspec package (pip install "tunery[ray]" '
                "has that of S3)",
            ) from error

    def _path(self, name: str) -> str:
        root: str = fsspec.core.url_to_fs(self.url)[1]
        return f"{root.rstrip('/')}/{name}"

    def _read_index(self, run: str) -> dict[str, StoredFile]:
        with self._told("read"):
            try:
                text = self._system.cat_file(self._path(f"{run}/{INDEX_FILE}"))
            except FileNotFoundError:
                return {}
        return {name: StoredFile(*facts) for name, facts in json.loads(text).items()}

    def _get(self, name: str, file: Path, facts: StoredFile) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.pulled")
        with self._told("read"):
            self._system.get_file(self._path(name), str(partial))
        os.utime(partial, ns=(facts.mtime_ns, facts.mtime_ns))
        partial.replace(file)

    def _put(self, file: Path, name: str) -> None:
        path = self._path(name)
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(file), path)

    def _told(self, what: str) -> "_Told":
        return _Told(self.url, what)


@dataclass(frozen=True)
class _Told:
    """Turns a store's own errors into what a user can mend."""

    url: str
    what: str

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise UserError(
                f"the storage cannot be {self.what}: {error}",
                where=f"--storage {self.url}",
                remedy="check the address and the credentials, then run the same command again",
            ) from error


def is_url(storage: str) -> bool:
    """Whether runs lie in an object store, and not in a folder."""
    return "://" in storage


def _files(run: Path) -> dict[str, StoredFile]:
    """The files of a run directory, but those that are half-written or a process's own."""
    found = {}
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            stat = file.stat()
            found[str(name)] = StoredFile(stat.st_size, stat.st_mtime_ns)
    return found


def _is_last(name: str) -> bool:
    return name in LAST


def _index_text(files: Mapping[str, StoredFile]) -> bytes:
    return json.dumps(files, indent=1).encode()
