"""How many requests a minute each client may make.

A token bucket: it holds a minute's worth of requests and fills evenly, so that a client may send
them at once and then keeps to the rate. It is counted as the time at which the bucket will be full
again (the generic cell rate algorithm of ITU-T I.371), one whole number a client, which neither
drifts nor rounds.
"""

import time
from collections.abc import Callable, Collection

NS_PER_S = 10**9
MINUTE_NS = 60 * NS_PER_S


class RateLimiter:
    """Counts the requests of clients, one number each. clock_ns: a clock that never goes back."""

    def __init__(self, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._full_at_ns: dict[str, int] = {}

    def take(self, client: str, *, per_minute: int) -> float:
        """Let a request of `client` in and return 0, or return the seconds until one may come.

        In any t seconds at most per_minute * (1 + t / 60) requests are let in, however they come;
        those that are refused count for nothing.
        """
        now_ns = self._clock_ns()
        # Rounded up, so that the rate is never above the limit.
        interval_ns = -(-MINUTE_NS // per_minute)
        full_at_ns = max(self._full_at_ns.get(client, now_ns), now_ns) + interval_ns
        wait_ns = full_at_ns - interval_ns * per_minute - now_ns
        if wait_ns > 0:
            return wait_ns / NS_PER_S
        self._full_at_ns[client] = full_at_ns
        return 0.0

    def keep(self, clients: Collection[str]) -> None:
        """Forget all others."""
        self._full_at_ns = {
            client: full_at_ns
            for client, full_at_ns in self._full_at_ns.items()
            if client in clients
        }
