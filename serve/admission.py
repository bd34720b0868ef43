"""The bounded line in front of an engine: who is not let in hears at once when to come back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.engine import Overloaded

NEWEST_WEIGHT = 0.2
"""Weight of the newest request in the running mean of how long requests take."""

MAX_RETRY_AFTER_S = 60.0


class WaitingLine:
    """Lets `num_slots` requests run and `max_waiting` wait, first come, first served."""

    def __init__(self, *, num_slots: int, max_waiting: int) -> None:
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._slots = asyncio.Semaphore(num_slots)
        self._mean_seconds = 1.0
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Wait for a slot and hold it; raises `Overloaded` where the line is full.

        Yields the seconds that it took to get the slot.
        """
        arrived = time.monotonic()
        await self._wait()
        started = time.monotonic()
        self.running += 1
        try:
            yield started - arrived
        finally:
            self.running -= 1
            self._slots.release()
            seconds = time.monotonic() - started
            self._mean_seconds += NEWEST_WEIGHT * (seconds - self._mean_seconds)

    async def _wait(self) -> None:
        if self._slots.locked() and self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.running} requests are running and {self.waiting} are waiting, "
                "which is all that this server takes at a time",
                retry_after_s=self._seconds_until_a_place(),
            )
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1

    def _seconds_until_a_place(self) -> float:
        """When the first of the line moves up, if requests go on taking as long as they did."""
        return min(MAX_RETRY_AFTER_S, self._mean_seconds / self._num_slots)
