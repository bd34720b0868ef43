"""Questions of an evaluation with both sides' answers, found by task, outcome and words.

An index of the file is kept in memory, so that a page costs a few reads and not all of its JSON.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args

import orjson

from data.compared_samples import Outcome
from serve.errors import ApiError

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MAX_LIMIT = 200
MAX_PAGE_BYTES = 16 * 2**20
"""A page is cut before it: samples with images take megabytes each."""
MAX_INDEXES = 8


class _Entry(NamedTuple):
    """Where a sample stands in the file, and by what it is found."""

    start: int
    num_bytes: int
    task: str
    outcome: str
    words: str


@dataclass(frozen=True)
class _Opened:
    """A file that is open, and what tells it from the one that takes its place."""

    path: Path
    inode: int
    mtime_ns: int
    num_bytes: int
    handle: BinaryIO = field(compare=False)


def find_samples(
    file: Path,
    *,
    task: str = "",
    outcome: str = "",
    search: str = "",
    offset: int = 0,
    limit: int = 50,
) -> dict[str, Any]:
    """`tasks` (all names), `total` (samples that match) and `samples` (`ComparedSample`).

    search: words that all have to stand in what was asked, the reference or the answers, whatever
    their case; empty task, outcome and search let all pass. At most `limit` samples from the one
    numbered `offset` (from 0) on; fewer where they are large, so the next page begins after as many
    as came. A file that is not there holds none, and lines that are no samples are passed over.
    Errors: 400 `ApiError` for an outcome that there is not, and for a limit not in 1 to 200.
    """
    if outcome and outcome not in OUTCOMES:
        raise _refused("outcome", f"must be one of {', '.join(OUTCOMES)}")
    if not 1 <= limit <= MAX_LIMIT:
        raise _refused("limit", f"must lie between 1 and {MAX_LIMIT}")
    if offset < 0:
        raise _refused("offset", "must not be negative")
    try:
        with file.open("rb") as handle:
            stat = os.fstat(handle.fileno())
            opened = _Opened(file, stat.st_ino, stat.st_mtime_ns, stat.st_size, handle)
            entries = _index(opened)
            words = search.casefold().split()
            matching = [entry for entry in entries if _matches(entry, task, outcome, words)]
            return {
                "tasks": list(dict.fromkeys(entry.task for entry in entries)),
                "total": len(matching),
                "samples": list(_read_page(handle, matching[offset : offset + limit])),
            }
    except OSError:
        return {"tasks": [], "total": 0, "samples": []}


@lru_cache(maxsize=MAX_INDEXES)
def _index(opened: _Opened) -> tuple[_Entry, ...]:
    entries: list[_Entry] = []
    start = 0
    for line in opened.handle:
        entry = _entry(line, start)
        if entry:
            entries.append(entry)
        start += len(line)
    return tuple(entries)


def _entry(line: bytes, start: int) -> _Entry | None:
    """None for a line that is no sample, such as the end of one that was not written whole."""
    try:
        sample = orjson.loads(line)
        texts = [*_texts(sample["messages"]), sample["reference"]]
        for side in (sample["baseline"], sample["variant"]):
            texts.append(side["text"])
            if not isinstance(side["name"], str) or not isinstance(side["score"], int | float):
                return None
        words = "\n".join([sample["id"], *texts]).casefold()
        task, outcome = sample["task"], sample["outcome"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not isinstance(task, str) or outcome not in OUTCOMES:
        return None
    return _Entry(start, len(line), task, outcome, words)


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    for turn in messages:
        content = turn["content"]
        if isinstance(content, str):
            yield content
        else:
            yield from (part["text"] for part in content if part["type"] == "text")


def _matches(entry: _Entry, task: str, outcome: str, words: list[str]) -> bool:
    return (
        (not task or entry.task == task)
        and (not outcome or entry.outcome == outcome)
        and all(word in entry.words for word in words)
    )


def _read_page(handle: BinaryIO, entries: list[_Entry]) -> Iterator[Any]:
    """The samples of a page, the first of which always fits."""
    num_bytes = 0
    for entry in entries:
        num_bytes += entry.num_bytes
        if num_bytes > MAX_PAGE_BYTES and num_bytes != entry.num_bytes:
            return
        handle.seek(entry.start)
        yield orjson.loads(handle.read(entry.num_bytes))


def _refused(name: str, told: str) -> ApiError:
    return ApiError(400, "invalid_params", f"{name}: {told}", param=name)
