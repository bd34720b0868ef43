"""Prepared rows and their lists on disk."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.conversation import Side
from data.splits import SIDES
from data.steps.rendered_batch import ROW_SCHEMA

# Rows of a row group: enough to compress well, few enough to hold many files open.
ROWS_IN_A_GROUP = 20_000
# The same of their turns, whose images are large; readers take a group as a whole.
BYTES_IN_A_GROUP = 128 << 20


class RowWriter:
    """The three sides' parquet files, filled table by table."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._writers = {
            side: self._stack.enter_context(
                pq.ParquetWriter(folder / f"{side}.parquet", ROW_SCHEMA, compression="zstd")
            )
            for side in SIDES
        }
        self._waiting: dict[Side, list[pa.RecordBatch]] = {side: [] for side in SIDES}
        self._waiting_bytes = dict.fromkeys(SIDES, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for side in SIDES:
            self._write(side)
        self._stack.close()

    def add(self, tables: Mapping[Side, pa.Table]) -> None:
        """Append rows, in the order in which they are to stand."""
        for side, table in tables.items():
            for batch in table.to_batches():
                self._waiting[side].append(batch)
                lengths = pc.binary_length(batch.column("messages"))
                self._waiting_bytes[side] += pc.sum(lengths).as_py() or 0
                if self._waiting_bytes[side] >= BYTES_IN_A_GROUP:
                    self._write(side)
            if sum(batch.num_rows for batch in self._waiting[side]) >= ROWS_IN_A_GROUP:
                self._write(side)

    def _write(self, side: Side) -> None:
        if self._waiting[side]:
            self._writers[side].write_table(pa.Table.from_batches(self._waiting[side]))
        self._waiting[side] = []
        self._waiting_bytes[side] = 0


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """One JSON object, indented."""
    file.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def write_json_lines(file: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    with file.open("wb") as handle:
        for value in values:
            handle.write(orjson.dumps(value) + b"\n")
