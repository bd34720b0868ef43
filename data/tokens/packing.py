"""Which rows share a sequence of fixed length, so that few positions of a batch are padding.

Only lengths are looked at: a plan costs no tokens, and can be made, told and checked before any.
"""

from bisect import bisect_left, insort
from collections import deque
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.integer]
PackNumbers = NDArray[np.int64]


def plan_packs(lengths: Lengths, capacity: int) -> PackNumbers:
    """The pack of each row, numbered from 0, by best-fit decreasing; none holds over `capacity`.

    lengths: tokens per row, shape (num_rows,), each from 1 to `capacity`, else a ValueError. Rows
    are taken longest first (equal ones in the order given), each into the pack with the least
    space that still holds it; of packs with the same space, into the one that has had it longest.
    At most 11/9 × the fewest packs possible, plus 4 (Johnson et al. 1974, doi 10.1137/0203025).
    Language models' rows were first packed so by Ding et al. 2024, arXiv 2404.10830.

    Packs with the same space, and rows of the same length, are served together: a pack of space s
    takes s // length rows, for what the first one leaves is still the tightest place for the next.
    """
    _check(lengths, capacity)
    longest_first = np.argsort(lengths.max(initial=0) - lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    packs = np.empty(len(lengths), dtype=np.int64)
    open_packs = _OpenPacks()
    done = num_packs = 0
    for length, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = done + count
        while done < end:
            space = open_packs.tightest(length)
            rows_each = (space or capacity) // length
            num_wanted = -(-(end - done) // rows_each)
            if space is None:
                space = capacity
                taken = list(range(num_packs, num_packs + num_wanted))
                num_packs += num_wanted
            else:
                taken = open_packs.take(space, num_wanted)
            served = np.repeat(taken, rows_each)[: end - done]
            packs[longest_first[done : done + len(served)]] = served
            done += len(served)
            # Only the last pack can be left with fewer rows than it holds.
            num_in_last = len(served) - (len(taken) - 1) * rows_each
            open_packs.add(space - rows_each * length, taken[:-1])
            open_packs.add(space - num_in_last * length, taken[-1:])
    return packs


def pack_efficiency(lengths: Lengths, packs: PackNumbers, capacity: int) -> float:
    """Share of the packs' positions that hold a token, 0 to 1: tokens / (packs × capacity).

    packs: the pack of each row, as `plan_packs` gives it. ValueError where there are no rows.
    """
    if not len(packs):
        raise ValueError("no rows, so there is no share of positions that they use")
    return int(lengths.sum()) / (len(np.unique(packs)) * capacity)


class _OpenPacks:
    """Packs with space left, by space in tokens; first in, first out within one space."""

    def __init__(self) -> None:
        self._by_space: dict[int, deque[int]] = {}
        self._spaces: list[int] = []

    def tightest(self, length: int) -> int | None:
        """The least space that holds `length` tokens; None where no pack does."""
        place = bisect_left(self._spaces, length)
        return self._spaces[place] if place < len(self._spaces) else None

    def take(self, space: int, most: int) -> list[int]:
        """Remove and return up to `most` packs that have exactly `space` left."""
        packs = self._by_space[space]
        taken = list(islice(packs, most))
        if len(taken) == len(packs):
            del self._by_space[space]
            self._spaces.pop(bisect_left(self._spaces, space))
        else:
            for _ in taken:
                packs.popleft()
        return taken

    def add(self, space: int, packs: list[int]) -> None:
        """Add packs that have `space` left; full ones are forgotten."""
        if not space or not packs:
            return
        if space not in self._by_space:
            self._by_space[space] = deque()
            insort(self._spaces, space)
        self._by_space[space].extend(packs)


def _check(lengths: Lengths, capacity: int) -> None:
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(
            f"lengths are whole numbers of one axis, not {lengths.dtype} of shape {lengths.shape}"
        )
    if not len(lengths):
        return
    for row, what in ((int(lengths.argmin()), "empty"), (int(lengths.argmax()), "too long")):
        if not 1 <= lengths[row] <= capacity:
            raise ValueError(
                f"row {row} is {what}: {lengths[row]} tokens, and a pack holds 1 to {capacity}"
            )
