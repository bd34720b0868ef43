from typing import Any

import pyarrow as pa

from data.copies.unique_rows import UniqueRows, drop_equal_rows
from data.splits import TEST, TRAIN, VALIDATION
from tests.data.spool_rows import spool_batch, spool_row


def unique(*rows: dict[str, Any], num_sources: int = 1) -> UniqueRows:
    return drop_equal_rows(pa.Table.from_batches([spool_batch(rows)]), num_sources=num_sources)


def test_rows_of_equal_content_become_one() -> None:
    rows = [spool_row(str(n % 4), where=f"line {n:02d}") for n in range(12)]
    found = unique(*rows)
    assert sorted(found.table.column("id").to_pylist()) == ["0", "1", "2", "3"]
    assert found.table.column("key").to_pylist() == sorted(found.table.column("key").to_pylist())
    for cluster, kept in zip(found.clusters, found.kept, strict=True):
        id = found.table.column("id")[int(kept)].as_py()
        assert cluster.where == [f"line {int(id) + 4 * n:02d}" for n in range(3)]
        assert found.table.column("where")[int(kept)].as_py() == cluster.where[0]
        assert not cluster.leaked


def test_rows_that_differ_in_their_answer_both_stay() -> None:
    found = unique(spool_row("q", "a"), spool_row("q", "b"))
    assert found.table.num_rows == 2
    assert found.clusters == []


def test_the_row_that_is_evaluated_stays() -> None:
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        rows = [
            spool_row("q", where="train", side=TRAIN),
            spool_row("q", where="validation", side=VALIDATION),
            spool_row("q", where="task", side=TEST, source=1),
            spool_row("q", where="test", side=TEST),
        ]
        found = unique(*(rows[n] for n in order))
        assert found.clusters[0].where == ["test", "task", "validation", "train"]
        assert found.clusters[0].sources == [0, 1, 0, 0]
        assert found.clusters[0].leaked
        assert found.table.column("side").to_pylist() == [TEST]


def test_only_a_pair_of_an_evaluated_and_another_row_is_a_leak() -> None:
    test, task = spool_row("q", side=TEST), spool_row("q", side=TEST, source=1)
    train, free = spool_row("q", side=TRAIN), spool_row("q")
    for rows, leaked in (
        ((test, task), False),
        ((train, free), False),
        ((test, train), True),
        ((task, free), True),
    ):
        assert unique(*rows).clusters[0].leaked == leaked
