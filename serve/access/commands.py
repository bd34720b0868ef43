"""What `tunery keys add | remove | list` does."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path

from rich.table import Table

from configs.errors import UserError
from serve.access.key_file import (
    NAME_PATTERN,
    KeyEntry,
    KeyFile,
    hash_key,
    make_key,
    read_keys,
    write_keys,
)


def add_key(
    file: Path,
    name: str,
    *,
    requests_per_minute: int | None = None,
    expires_after_days: float | None = None,
) -> str:
    """Make a key for a client, and return it: it cannot be shown again.

    Makes the file, and the folder it stands in, where there is none. Raises `UserError` for a name
    that is taken or odd.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"{name!r} cannot be the name of a key",
            remedy="take up to 64 letters, digits and . _ @ -, with a letter or digit first",
        )
    _check_terms(requests_per_minute, expires_after_days)
    now = datetime.now(UTC).replace(microsecond=0)
    key = make_key()
    entry = KeyEntry(
        name=name,
        sha256=hash_key(key),
        created=now,
        requests_per_minute=requests_per_minute,
        expires=None if expires_after_days is None else now + timedelta(days=expires_after_days),
    )
    with _changing(file):
        keys = read_keys(file).keys if file.exists() else ()
        if any(other.name == name for other in keys):
            raise UserError(
                f"there is a key of that name already: {name}",
                where=file,
                remedy="take another name, or remove that key first",
            )
        write_keys(file, KeyFile(keys=(*keys, entry)))
    return key


def remove_key(file: Path, name: str) -> None:
    """End a key; a running server lets it in no more. Raises `UserError` where there is none."""
    read_keys(file)  # so that no folder is made for a misspelt path
    with _changing(file):
        keys = read_keys(file).keys
        left = tuple(entry for entry in keys if entry.name != name)
        if len(left) == len(keys):
            close = get_close_matches(name, [entry.name for entry in keys], n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(
                f"there is no key of that name: {name}",
                where=file,
                remedy=f"{hint}`tunery keys list` shows them all",
            )
        write_keys(file, KeyFile(keys=left))


def build_key_table(file: Path) -> Table:
    """A table of the keys' names and terms; raises `UserError` where the file cannot be read."""
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "created", "requests a minute", "expires"):
        table.add_column(column)
    for entry in read_keys(file).keys:
        limit = (
            "no limit" if entry.requests_per_minute is None else f"{entry.requests_per_minute:,}"
        )
        expires = "never" if entry.expires is None else f"{entry.expires:%Y-%m-%d %H:%M}"
        if entry.is_expired(now):
            expires = f"[red]{expires}, expired[/]"
        table.add_row(entry.name, f"{entry.created:%Y-%m-%d %H:%M}", limit, expires)
    return table


def _check_terms(requests_per_minute: int | None, expires_after_days: float | None) -> None:
    if requests_per_minute is not None and requests_per_minute < 1:
        raise UserError(
            f"{requests_per_minute} requests a minute let nobody in",
            remedy="give a number of at least 1, or none for no limit",
        )
    if expires_after_days is not None and not 0 < expires_after_days <= 36_500:
        raise UserError(
            f"a key cannot end after {expires_after_days:g} days",
            remedy="give a number above 0 and of at most 36,500, or none for a key that never ends",
        )


@contextmanager
def _changing(file: Path) -> Iterator[None]:
    """Let one process at a time change the file, whose folder is made where there is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            # Let go of when it is closed, however the process ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f"the file of API keys cannot be written: {error.strerror}",
            where=file,
            remedy="name a file in a folder that you may write in, or become the user who may",
        ) from error
