"""A few rows out of any number, the same ones in whatever order they come, in little memory."""

import hashlib
import heapq
from typing import Generic, TypeVar

Row = TypeVar("Row")


class HashSample(Generic[Row]):
    """Keeps the `limit` rows of smallest hash; rows of equal hash are one row."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # heapq keeps the smallest in front, and the largest has to go.
        self._heap: list[int] = []
        self._rows: dict[int, Row] = {}

    def wants(self, key: int) -> bool:
        """Whether a row of this hash would stay now; a row that it does not want never will."""
        if key in self._rows:
            return False
        return len(self._heap) < self.limit or (self.limit > 0 and key < -self._heap[0])

    def add(self, key: int, row: Row) -> None:
        """Keep a row that is wanted, and let go of the one that it replaces."""
        assert self.wants(key), "ask `wants` first"
        if len(self._heap) == self.limit:
            gone = -heapq.heappop(self._heap)
            del self._rows[gone]
        heapq.heappush(self._heap, -key)
        self._rows[key] = row

    def rows(self) -> list[Row]:
        """The rows kept, in the order of their hashes."""
        return [self._rows[key] for key in sorted(self._rows)]


def hash_of(text: str) -> int:
    """64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
