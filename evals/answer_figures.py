"""Figures over many answers; what is not known of all of them is not told of some."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from evals.task import Answer


class Latency(NamedTuple):
    """Median and 95th percentile of a request's seconds; None where no answer's are known."""

    median_s: float | None
    p95_s: float | None


def total(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one is unknown, since a sum of the others would pass for all of them."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def mean(counts: Iterable[int | None]) -> float | None:
    """The mean; None where one is unknown, and of nothing."""
    known = list(counts)
    summed = total(known)
    return summed / len(known) if known and summed is not None else None


def latency(answers: Sequence[Answer]) -> Latency:
    """Over the answers whose seconds are known."""
    seconds = [answer.seconds for answer in answers if answer.seconds is not None]
    if not seconds:
        return Latency(None, None)
    return Latency(float(np.median(seconds)), float(np.percentile(seconds, 95)))
