"""Pairs of answers on disk: what the client got, and what the shadow would have said.

One JSON line a pair, in a file a day. A thread of its own writes them: a disk that is slow, full or
gone holds up no answer.
"""

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson

from configs.serve_schema import RecordingConfig
from serve.pair import Pair, render_pair

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Pairs that may wait for the disk; further ones are dropped and counted."""
LONGEST_PAUSE_S = 3600.0
CLOSE_S = 5.0
"""How long a disk that hangs may hold up the server's end."""


class Recorder:
    """Appends pairs to `folder`/YYYY-MM-DD.jsonl (days of UTC), readable by their owner alone.

    Prompts and answers are kept only where `config.texts` is on, images never (their hashes are).
    A file is removed when its whole day is `config.keep_days` old: while a recorder runs, a record
    lives at least `keep_days` and at most one day longer; what a server leaves behind when it ends,
    the next one removes at its start. What cannot be written is logged once, until writing works
    again, and counted in `num_errors`; on_error: called each time, from the writing thread.
    """

    def __init__(
        self,
        folder: Path,
        config: RecordingConfig,
        *,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._config = config
        self._on_error = on_error
        self._works = True
        self.num_errors = 0
        self._waiting: queue.Queue[Pair | None] = queue.Queue(MAX_WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
        self._thread.start()

    def add(self, pair: Pair) -> None:
        """Have the pair written; returns at once and never raises."""
        try:
            if self._closing.is_set():
                raise queue.Full
            self._waiting.put_nowait(pair)
        except queue.Full:
            self._fail("pairs come faster than the disk takes them")

    async def close(self) -> None:
        """Write what waits, and end; may be called twice."""
        if not self._closing.is_set():
            self._closing.set()
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        deadline = time.monotonic() + CLOSE_S
        try:
            self._waiting.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        next_removal = 0.0
        while True:
            if time.monotonic() >= next_removal:
                next_removal = time.monotonic() + self._remove_expired()
            try:
                pair = self._waiting.get(timeout=max(0.0, next_removal - time.monotonic()))
            except queue.Empty:
                continue
            if pair is None:
                return
            self._write(pair)

    def _remove_expired(self) -> float:
        """Seconds until to look again."""
        try:
            due = remove_expired(self._folder, keep_days=self._config.keep_days)
        except OSError as error:
            self._fail(f"old recordings cannot be removed: {error.strerror}")
            due = None
        if due is None:
            return LONGEST_PAUSE_S
        return min(LONGEST_PAUSE_S, max(1.0, (due - datetime.now(UTC)).total_seconds()))

    def _write(self, pair: Pair) -> None:
        try:
            line = orjson.dumps(render_pair(pair, texts=self._config.texts)) + b"\n"
            _append(self._folder / f"{pair.time:%Y-%m-%d}.jsonl", line)
        except OSError as error:
            self._fail(f"pairs cannot be recorded: {error.strerror}")
        except (TypeError, ValueError):  # text that no UTF-8 can hold
            self._fail("a pair cannot be written as JSON")
        else:
            self._works = True

    def _fail(self, why: str) -> None:
        self.num_errors += 1
        if self._works:
            logger.error("%s (further ones are counted, not told) in %s", why, self._folder)
        self._works = False
        self._on_error()


def remove_expired(
    folder: Path, *, keep_days: float, now: datetime | None = None
) -> datetime | None:
    """Remove the files whose whole day is `keep_days` old; only `YYYY-MM-DD.jsonl` are looked at.

    Returns when the next one is due, None where there is none. Raises `OSError`.
    """
    now = now or datetime.now(UTC)
    next_due: datetime | None = None
    for file in sorted(folder.glob("????-??-??.jsonl")):
        try:
            day = date.fromisoformat(file.stem)
        except ValueError:
            continue
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        due = midnight + timedelta(days=1 + keep_days)
        if due <= now:
            file.unlink(missing_ok=True)
        elif next_due is None:
            next_due = due
    return next_due


def _append(file: Path, line: bytes) -> None:
    """Append the line whole, or leave the file as it was."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(file, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
