from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.steps.rendered_batch import ROW_SCHEMA
from data.steps.write_rows import RowWriter


def rows(*messages: str) -> pa.Table:
    columns = {field.name: [None] * len(messages) for field in ROW_SCHEMA}
    return pa.table(columns | {"messages": list(messages)}, ROW_SCHEMA)


def groups(file: Path) -> list[int]:
    metadata = pq.ParquetFile(file).metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def test_rows_stand_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    with RowWriter(tmp_path) as writer:
        writer.add({"train": rows("a", "b")})
        writer.add({"train": rows("c"), "test": rows("d")})
    written = {
        side: pq.read_table(tmp_path / f"{side}.parquet").column("messages").to_pylist()
        for side in ("train", "validation", "test")
    }
    assert written == {"train": ["a", "b", "c"], "validation": [], "test": ["d"]}


def test_a_group_has_so_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.steps.write_rows.ROWS_IN_A_GROUP", 3)
    with RowWriter(tmp_path) as writer:
        for _ in range(4):
            writer.add({"train": rows("a", "b")})
    assert groups(tmp_path / "train.parquet") == [4, 4]


def test_large_rows_are_written_before_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.steps.write_rows.BYTES_IN_A_GROUP", 100)
    large = pa.concat_tables([rows("x" * 60)] * 5)
    with RowWriter(tmp_path) as writer:
        writer.add({"train": large})
        writer.add({"train": rows("a")})
    assert groups(tmp_path / "train.parquet") == [2, 2, 2]
