"""Which files a configuration names; nothing heavy is loaded here, as it runs at every start."""

import os
from collections.abc import Sequence
from pathlib import Path

from configs.data_schema import Paths
from configs.errors import UserError

WILDCARDS = "*?["


def expand_paths(paths: Paths | None, *, key: str) -> list[Path]:
    """The files of a path, a glob or a list of them, globs in sorted order.

    key: the configuration's key, for messages. Errors: `UserError` for a file that is not there or
    cannot be read, a folder, and a glob that matches nothing.
    """
    if paths is None:
        return []
    files: list[Path] = []
    for path in paths if isinstance(paths, list) else [paths]:
        found = _expand(path)
        if not found:
            raise UserError(
                "no file matches the pattern", where=f"{key}: {path}", remedy="check the pattern"
            )
        for file in found:
            _check_readable(file, key)
        files += found
    return files


def one_file(path: Path, *, key: str) -> Path:
    """The file of a path that has to name exactly one. Errors as `expand_paths`."""
    files = expand_paths(path, key=key)
    if len(files) > 1:
        raise UserError(
            f"the pattern matches {len(files):,} files, and one is needed",
            where=f"{key}: {path}",
            remedy="name one file",
        )
    return files[0]


def short_names(files: Sequence[Path]) -> list[str]:
    """Names that tell the files apart: the file names, or their paths from a common folder."""
    names = [file.name for file in files]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([file.parent for file in files])
    return [str(file.relative_to(common)) for file in files]


def is_local_folder(id: str) -> bool:
    """Whether a data set's id names a folder: it begins with `/`, `./`, `../` or `~`.

    Anything else is `owner/name` on the hub, whatever the working directory holds.
    """
    return id.startswith(("/", "./", "../", "~")) or id in (".", "..")


def local_folder(id: str) -> Path:
    """The folder of an id that `is_local_folder`, as seen from the working directory."""
    return Path(id).expanduser()


def _expand(path: Path) -> list[Path]:
    if any(sign in str(path) for sign in WILDCARDS) and not path.exists():
        return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    return [path]


def _check_readable(file: Path, key: str) -> None:
    if file.is_dir():
        raise UserError(
            "this is a folder, not a file",
            where=f"{key}: {file}",
            remedy=f"name its files, such as {file}/*.jsonl",
        )
    try:
        file.open("rb").close()
    except OSError as error:
        raise unreadable(error, where=f"{key}: {file}") from error


def unreadable(error: OSError, *, where: str | Path) -> UserError:
    """What to tell the user when a file cannot be opened or read."""
    return UserError(
        f"cannot read the data file: {error.strerror or error}",
        where=where,
        remedy="check the path and the file's permissions",
    )
