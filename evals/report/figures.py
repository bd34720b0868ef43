"""The forest plot: one line of SVG a task, whose places are percentages of the line's width.

So a page can lay each line out beside words of its own: as wide as the window allows, with text
that is never scaled, in the page's colours and with nothing that printers leave out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from configs.evaluation_schema import Role, Verdict
from evals.report.words import ROLE_TITLES, of_role
from evals.results import ComparisonResult, GuardResult, TaskResult

MAX_TICKS = 6
PAD = 0.06
STEPS = (1, 2, 5)


class Tick(NamedTuple):
    """A number on the axis, in points; at: its place in percent of the width."""

    value: float
    at: float


class ForestRow(NamedTuple):
    """A difference with its interval; places in percent of the width.

    delta and interval: shares of 1; verdict: None for the pooled row; high_at is the right end of
    the plot where the interval has one side only.
    """

    label: str
    note: str
    delta: float
    interval: tuple[float, float | None]
    at: float
    low_at: float
    high_at: float
    verdict: Verdict | None
    is_pooled: bool = False
    passed: bool | None = None


class ForestGroup(NamedTuple):
    """Tasks of one role with their axis; band: the margin's ends, one-sided for guards."""

    role: Role
    title: str
    rows: list[ForestRow]
    ticks: list[Tick]
    zero_at: float
    band: tuple[float, float]
    margin: float


class Axis(NamedTuple):
    """From low to high, in shares of 1."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """In percent of the width, kept inside it."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def ticks(self) -> list[Tick]:
        """At most `MAX_TICKS` round numbers, in points."""
        low, high = 100 * self.low, 100 * self.high
        step = next(
            base * 10.0**power
            for power in range(-3, 3)
            for base in STEPS
            if math.floor(high / (base * 10.0**power)) - math.ceil(low / (base * 10.0**power))
            < MAX_TICKS
        )
        numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
        return [Tick(number * step, self.place(number * step / 100)) for number in numbers]


def build_forest(result: ComparisonResult) -> list[ForestGroup]:
    """Main and further tasks share a scale; guards, whose differences are small, have their own."""
    domain = of_role(result, "primary", "exploratory")
    guards = of_role(result, "guard")
    margin = result["equivalence_margin"]
    groups = []
    axis = _axis(domain, margin)
    for role in ("primary", "exploratory"):
        if tasks := of_role(result, role):
            rows = [_row(task, axis) for task in tasks]
            groups.append(_group(role, rows, axis, margin=margin, upper=margin))
    if guards and result["guard"] is not None:
        guard = result["guard"]
        limit = guard["non_inferiority"]["margin"]
        axis = _axis(guards, limit, guard=guard)
        rows = [_pooled_row(guard, axis, len(guards)), *(_row(task, axis) for task in guards)]
        groups.append(_group("guard", rows, axis, margin=limit, upper=0.0))
    return groups


def _axis(tasks: Sequence[TaskResult], margin: float, guard: GuardResult | None = None) -> Axis:
    """Wide enough for all intervals, zero and the margin on both sides."""
    ends = [bound for task in tasks for bound in task["interval"]]
    if guard is not None:
        ends += [guard["delta"], guard["non_inferiority"]["lower_bound"]]
    low, high = min([*ends, -1.5 * margin]), max([*ends, 1.5 * margin])
    pad = PAD * (high - low)
    return Axis(low - pad, high + pad)


def _row(task: TaskResult, axis: Axis) -> ForestRow:
    low, high = task["interval"]
    return ForestRow(
        label=task["name"],
        note=f"{task['num_samples']:,} questions",
        delta=task["delta"],
        interval=(low, high),
        at=axis.place(task["delta"]),
        low_at=axis.place(low),
        high_at=axis.place(high),
        verdict=task["verdict"],
    )


def _pooled_row(guard: GuardResult, axis: Axis, num_tasks: int) -> ForestRow:
    """All guard tasks together, of which only the lower bound matters."""
    bound = guard["non_inferiority"]
    return ForestRow(
        label="All together",
        note=f"{num_tasks} tasks, same weight" if num_tasks > 1 else "1 task",
        delta=guard["delta"],
        interval=(bound["lower_bound"], None),
        at=axis.place(guard["delta"]),
        low_at=axis.place(bound["lower_bound"]),
        high_at=100.0,
        verdict=None,
        is_pooled=True,
        passed=bound["passed"],
    )


def _group(
    role: Role, rows: list[ForestRow], axis: Axis, *, margin: float, upper: float
) -> ForestGroup:
    return ForestGroup(
        role=role,
        title=ROLE_TITLES[role],
        rows=rows,
        ticks=axis.ticks(),
        zero_at=axis.place(0.0),
        band=(axis.place(-margin), axis.place(upper)),
        margin=margin,
    )
