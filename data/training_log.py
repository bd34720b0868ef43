"""The losses in a trainer's `log_history`, for whoever draws their curves."""

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

Log = Mapping[str, float]
History = Sequence[Log]


class Point(NamedTuple):
    """A value after an optimizer step; steps count from 1."""

    step: int
    value: float


def series(history: History, name: str) -> list[Point]:
    """The values that were logged under `name`, those that are finite."""
    return [
        Point(int(log["step"]), log[name])
        for log in history
        if name in log and math.isfinite(log[name])
    ]


def of_training(history: History) -> list[Log]:
    """The log up to the trainer's summary at its end, which has the mean loss.

    What is logged later, such as the validation of the adapter that is kept, has the last step's
    number and belongs to none.
    """
    return list(takewhile(lambda log: "train_loss" not in log, history))


def thin(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most about `max_points` of them, which keep every stretch's highest and lowest."""
    if len(points) <= max_points:
        return list(points)
    size = math.ceil(2 * len(points) / max_points)
    kept: list[Point] = []
    for first in range(0, len(points), size):
        stretch = points[first : first + size]
        ends = {min(stretch, key=lambda one: one.value), max(stretch, key=lambda one: one.value)}
        kept += sorted(ends)
    return kept
