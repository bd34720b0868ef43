"""Evaluation rows that rows meant for training repeat as a whole, or ask.

These training rows are kept out; how many there are says whether a split is what it is taken for.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.splits import NEAR_TEST, SAME_QUESTION, TASK, TEST
from data.steps.index_rows import RowIndex


class Leak(NamedTuple):
    """An evaluation row and the row that gives it away; kind: how they are alike."""

    row: int
    train_row: int
    train_where: str
    kind: str


def find_leaks(index: RowIndex, actions: np.ndarray) -> list[Leak]:
    """For each evaluation row that rows meant for training give away the closest such pair."""
    evaluated = np.isin(actions, (TEST, TASK))
    pairs = [
        *_equal_rows(index, evaluated),
        *_same_questions(index, actions, evaluated),
        *_same_units(index, actions, evaluated),
    ]
    closest: dict[int, Leak] = {}
    for pair in pairs:
        closest.setdefault(pair.row, pair)
    return list(closest.values())


def _equal_rows(index: RowIndex, evaluated: np.ndarray) -> Iterator[Leak]:
    for cluster, kept in zip(index.exact, index.exact_kept.tolist(), strict=True):
        if cluster.leaked and evaluated[kept]:
            # The one that was kept stands first, those to train on last; both have its text.
            yield Leak(kept, kept, cluster.where[-1], "the same row")


def _same_questions(index: RowIndex, actions: np.ndarray, evaluated: np.ndarray) -> Iterator[Leak]:
    """Of official test rows and tasks only: what this program holds out itself tells nothing."""
    asked = index.facts.asked
    by_question: dict[int, int] = {}
    for other in np.flatnonzero(actions == SAME_QUESTION).tolist():
        for value in asked.values[asked.offsets[other] : asked.offsets[other + 1]].tolist():
            by_question.setdefault(value, other)
    rows = np.flatnonzero(evaluated & (index.facts.fixed == TEST))
    for row, question in zip(rows.tolist(), index.facts.question[rows].tolist(), strict=True):
        other = by_question.get(question)
        if other is not None:
            yield Leak(row, other, index.where[other].as_py(), "the same question")


def _same_units(index: RowIndex, actions: np.ndarray, evaluated: np.ndarray) -> Iterator[Leak]:
    others = np.flatnonzero(actions == NEAR_TEST)
    units, first = np.unique(index.unit[others], return_index=True)
    rows = np.flatnonzero(evaluated & np.isin(index.unit, units))
    found = others[first[np.searchsorted(units, index.unit[rows])]]
    for row, other in zip(rows.tolist(), found.tolist(), strict=True):
        yield Leak(row, other, index.where[other].as_py(), "nearly the same question")
