"""How long to wait before a host is asked again: as it says, and never all at the same moment."""

import random

INITIAL_WAIT_S = 0.5
LONGEST_OWN_WAIT_S = 8.0
# A host that asks for more (its quota of the day is used up) is not waited for.
LONGEST_RETRY_AFTER_S = 600.0
JITTER = 0.25


def retry_wait_s(num_failed: int, retry_after_s: float | None) -> float:
    """Seconds to wait after `num_failed` attempts at one question.

    At least as long as the host says; without its word 0.5 s, doubled each time, at most 8 s. Up
    to a quarter is added at random, so that requests refused together do not return together.
    """
    own = min(INITIAL_WAIT_S * 2.0 ** min(num_failed - 1, 10), LONGEST_OWN_WAIT_S)
    wait = own if retry_after_s is None else retry_after_s
    return wait * (1 + JITTER * random.random())  # noqa: S311 (nothing secret depends on it)


def is_too_long(retry_after_s: float | None) -> bool:
    """Whether the host asks for a wait that a run is not kept open for."""
    return retry_after_s is not None and retry_after_s > LONGEST_RETRY_AFTER_S


class Pace:
    """Requests one after the other, evenly: a minute's worth at once would keep the mean alone."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._gap_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Seconds that the request which asks `now_s` has to wait for its turn, which it takes."""
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._gap_s
        return turn_s - now_s
