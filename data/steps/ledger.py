"""Every row that was read and is not used, so that none is lost unseen."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from data.conversation import Reject

NUM_SHOWN_OF_A_REASON = 3
NUM_SHOWN = 40


@dataclass
class Ledger:
    """Counts, and each reject in a file: one JSON object a line with source, place and reason.

    labels: names of the sources by number. Rows read = rows written + rejects + rows dropped by a
    counted rule, for each source and in all. shown: some rejects of each reason, of the first
    num_own sources alone (all of them when None): reports count no rejects of evaluation sets.
    """

    labels: list[str]
    handle: IO[str]
    num_read: Counter[int] = field(default_factory=Counter)
    num_rejects: Counter[int] = field(default_factory=Counter)
    reasons: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    dropped: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    shown: list[Reject] = field(default_factory=list)
    num_own: int | None = None

    def reject(self, source: int, rejects: Iterable[Reject]) -> None:
        """Keep rows of a source that cannot be used."""
        for one in rejects:
            told = {"source": self.labels[source], "where": one.where, "reason": one.reason}
            self.handle.write(json.dumps(told, ensure_ascii=False) + "\n")
            self.num_rejects[source] += 1
            self.reasons[source][one.reason] += 1
            is_among_first = self.reasons[source][one.reason] <= NUM_SHOWN_OF_A_REASON
            is_own = self.num_own is None or source < self.num_own
            if is_own and is_among_first and len(self.shown) < NUM_SHOWN:
                self.shown.append(one)

    def drop(self, source: int, rule: str, num_rows: int) -> None:
        """Count rows of a source that a rule leaves out."""
        if num_rows:
            self.dropped[source][rule] += num_rows

    def reasons_of(self, num_sources: int) -> Counter[str]:
        """Why rows of the first sources were rejected, and how many."""
        return sum((self.reasons[source] for source in range(num_sources)), Counter())

    def num_lost(self, num_written: Counter[int]) -> int:
        """Rows of any source that nothing accounts for: 0 unless this program is wrong."""
        return sum(
            abs(count - num_written[n] - self.num_rejects[n] - self.dropped[n].total())
            for n, count in self.num_read.items()
        )


@contextmanager
def open_ledger(file: Path, labels: list[str], *, num_own: int | None = None) -> Iterator[Ledger]:
    """A ledger whose rejects go to `file` as they are found; num_own: all sources when None."""
    # What a reject quotes may hold half a character.
    with file.open("w", encoding="utf-8", errors="backslashreplace") as handle:
        yield Ledger(labels=labels, handle=handle, num_own=num_own)
