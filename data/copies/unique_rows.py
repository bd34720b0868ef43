"""Of rows of equal content one stays: the one that is tested, if any is."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.splits import TEST, VALIDATION
from data.steps.spool import key_numbers


class ExactCluster(NamedTuple):
    """Rows of equal content: where they stand and their sources, the kept one first.

    leaked: whether an evaluation row is among them and one that is not.
    """

    where: list[str]
    sources: list[int]
    leaked: bool


class UniqueRows(NamedTuple):
    """Rows in the order of their keys, and the clusters that others were left out of.

    kept: for each cluster the number of the row that stayed.
    """

    table: pa.Table
    clusters: list[ExactCluster]
    kept: np.ndarray


def drop_equal_rows(table: pa.Table, *, num_sources: int) -> UniqueRows:
    """Sort a bucket by key and keep one row of each; sources from `num_sources` on are tasks."""
    table = table.take(_order(table, num_sources)).combine_chunks()
    numbers = key_numbers(table.column("key").combine_chunks())
    is_first = np.ones(len(numbers), bool)
    is_first[1:] = (numbers[1:] != numbers[:-1]).any(axis=1)
    first = np.flatnonzero(is_first)
    sizes = np.diff(first, append=len(numbers))
    repeated = np.flatnonzero(sizes > 1)
    clusters = [
        _cluster(table.slice(first[number], sizes[number]), num_sources) for number in repeated
    ]
    return UniqueRows(table.take(first), clusters, repeated)


def _order(table: pa.Table, num_sources: int) -> np.ndarray:
    numbers = key_numbers(table.column("key").combine_chunks())
    place = pc.rank(table.column("where"), tiebreaker="first").to_numpy()
    rank = _keep_rank(table, num_sources)
    return np.asarray(np.lexsort((place, rank, numbers[:, 1], numbers[:, 0])))


def _keep_rank(table: pa.Table, num_sources: int) -> np.ndarray:
    """Which of equal rows stays, lowest first: own test, task, validation, others."""
    side = table.column("side").to_numpy()
    task = table.column("source").to_numpy() >= num_sources
    return np.select([(side == TEST) & ~task, task, side == VALIDATION], [0, 1, 2], 3)


def _cluster(rows: pa.Table, num_sources: int) -> ExactCluster:
    evaluated = _keep_rank(rows, num_sources) <= 1
    return ExactCluster(
        where=rows.column("where").to_pylist(),
        sources=rows.column("source").to_pylist(),
        leaked=bool(evaluated.any() and not evaluated.all()),
    )
