"""Which side of the split a row stands on: decided by its own content, for good.

Rows that belong together (one group, one question, one cluster of near duplicates) form a unit and
share a side. A unit's side comes from a hash of its smallest member, so it depends neither on the
order nor on the number of rows: when data grow, a row changes its side only where a new row joins
its unit.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from configs.data_schema import DataConfig
from data.conversation import FixedSide, Side
from data.copies.word_ngrams import mix

SIDES: tuple[Side, ...] = ("train", "validation", "test")
SIDE_CODES: dict[FixedSide, int] = {"": -1, "train": 0, "validation": 1, "test": 2}
TRAIN, VALIDATION, TEST = (SIDE_CODES[side] for side in SIDES)
# A row of an evaluation task keeps others out of training, and is not written itself.
TASK = 3
SAME_QUESTION, NEAR_TEST, NEAR_VALIDATION, BEYOND_LIMIT, THINNED = range(-1, -6, -1)
REJECT_REASONS = {
    SAME_QUESTION: "asks the same as a row of the test set",
    NEAR_TEST: "asks nearly the same as, or shares its group with, a row of the official test set",
    NEAR_VALIDATION: "asks nearly the same as a row of the official validation set",
}
DROP_RULES = {
    BEYOND_LIMIT: "beyond data.max_rows",
    THINNED: "thinned to the mixture's weights",
}


class RaggedHashes(NamedTuple):
    """Lists of hashes: row i has values[offsets[i] : offsets[i + 1]], uint64."""

    values: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """What decides the rows' sides; every array has one entry a row, in the order of the hashes.

    group, question: uint64 hashes, group is 0 where a row has none; asked: what stands before each
    of its assistant turns; fixed: int8 `SIDE_CODES`; source: int16; task: bool, rows of evaluation
    tasks; cluster: int64, the smallest row number of the row's near-duplicate cluster.
    """

    group: np.ndarray
    question: np.ndarray
    asked: RaggedHashes
    fixed: np.ndarray
    source: np.ndarray
    task: np.ndarray
    cluster: np.ndarray


def assign_sides(
    rows: RowFacts, unit: np.ndarray, config: DataConfig, weights: list[float]
) -> np.ndarray:
    """For each row its side, or `TASK`, or the negative code of why it is not used: int8.

    unit: as `units_of` gives it; weights: of the sources, by number. test_fraction is taken of all
    units and validation_fraction of what remains, unless an official split has decided.
    """
    limited = _beyond_limit(rows, config.max_rows)
    used = ~limited
    actions = _sides_of_units(rows, unit, used, config)
    tested = np.unique(rows.question[used & (actions == TEST)])
    trained = np.isin(actions, (TRAIN, VALIDATION, NEAR_TEST))
    actions[trained & _asks_any(rows.asked, tested)] = SAME_QUESTION
    actions[limited] = BEYOND_LIMIT
    actions[rows.task] = TASK
    for row_numbers in _surplus(actions, rows.source, weights):
        actions[row_numbers] = THINNED
    return actions


def side_share(keys: np.ndarray, salt: str) -> np.ndarray:
    """A number from 0 to 1 for each uint64 key, the same for good, another for another salt."""
    offset = int.from_bytes(salt.encode()[:8].ljust(8, b"\0"))
    return mix(keys.astype(np.uint64) + np.uint64(offset)) / 2.0**64


def _beyond_limit(rows: RowFacts, max_rows: int | None) -> np.ndarray:
    limited = np.zeros(len(rows.question), bool)
    if max_rows is not None:
        limited[np.flatnonzero(~rows.task)[max_rows:]] = True
    return limited


def units_of(rows: RowFacts) -> np.ndarray:
    """Rows that belong together: by group, question or cluster, however many steps away.

    The unit of each row, numbered from 0.
    """
    num_rows = len(rows.question)
    numbers = np.arange(num_rows)
    grouped = np.flatnonzero(rows.group)
    joined = [
        (numbers, rows.cluster),
        (numbers, _first_with_same(rows.question)),
        (grouped, grouped[_first_with_same(rows.group[grouped])]),
    ]
    left = np.concatenate([pair[0] for pair in joined])
    right = np.concatenate([pair[1] for pair in joined])
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(num_rows, num_rows))
    _, unit = connected_components(graph, directed=False)
    return np.asarray(unit)


def _first_with_same(values: np.ndarray) -> np.ndarray:
    """For each entry the position of the first one that equals it."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def _sides_of_units(
    rows: RowFacts, unit: np.ndarray, used: np.ndarray, config: DataConfig
) -> np.ndarray:
    num_units = int(unit.max(initial=-1)) + 1
    keys = np.full(num_units, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(keys, unit, np.where(rows.group > 0, rows.group, rows.question))
    large = np.bincount(unit, minlength=num_units) > config.near_duplicates.max_held_out_rows
    has = {
        side: _any_in_unit(used & (rows.fixed == side), unit, num_units)
        for side in (TRAIN, VALIDATION, TEST)
    }
    # A source with a validation split of its own gives no other rows to it.
    validated = np.unique(rows.source[rows.fixed == VALIDATION])
    settled = (rows.fixed == TRAIN) & np.isin(rows.source, validated)
    drawn_test = side_share(keys, "test") < config.test_fraction
    drawn_validation = side_share(keys, "validate") < config.validation_fraction
    may_test = drawn_test & ~large & ~has[TRAIN] & ~has[VALIDATION] & ~has[TEST]
    may_validate = (
        drawn_validation & ~large & ~has[VALIDATION] & ~_any_in_unit(settled, unit, num_units)
    )
    side = np.select([may_test, may_validate], [TEST, VALIDATION], TRAIN)[unit]
    in_test, in_validation = has[TEST][unit], has[VALIDATION][unit]
    actions = np.where(rows.fixed == VALIDATION, VALIDATION, side)
    actions = np.where(in_validation & (rows.fixed != VALIDATION), NEAR_VALIDATION, actions)
    actions = np.where(in_test, NEAR_TEST, actions)
    return np.where(rows.fixed == TEST, TEST, actions).astype(np.int8)


def _any_in_unit(rows: np.ndarray, unit: np.ndarray, num_units: int) -> np.ndarray:
    found = np.zeros(num_units, bool)
    found[unit[rows]] = True
    return found


def _asks_any(asked: RaggedHashes, tested: np.ndarray) -> np.ndarray:
    hits = np.isin(asked.values, tested)
    total = np.concatenate(([0], np.cumsum(hits)))
    return np.asarray(total[asked.offsets[1:]] > total[asked.offsets[:-1]])


def _surplus(actions: np.ndarray, source: np.ndarray, weights: list[float]) -> list[np.ndarray]:
    """Training rows of each source beyond its share, the last ones in the order of the hashes."""
    trained = [np.flatnonzero((actions == TRAIN) & (source == n)) for n in range(len(weights))]
    parts = [(own, weight) for own, weight in zip(trained, weights, strict=True) if len(own)]
    rows_per_weight = min((len(own) / weight for own, weight in parts), default=0)
    return [own[round(rows_per_weight * weight) :] for own, weight in parts]
