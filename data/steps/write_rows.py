"""Prepared rows and their lists on disk."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data.conversation import Side
from data.splits import SIDES
from data.steps.render_rows import ROW_SCHEMA

# Rows of a row group: enough to compress well, few enough to hold many files open.
ROWS_IN_A_GROUP = 20_000


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
        self._waiting: dict[Side, list[pa.Table]] = {side: [] for side in SIDES}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for side in SIDES:
            self._write(side)
        self._stack.close()

    def add(self, tables: Mapping[Side, pa.Table]) -> None:
        """Append rows, in the order in which they are to stand."""
        for side, table in tables.items():
            self._waiting[side].append(table)
            if sum(one.num_rows for one in self._waiting[side]) >= ROWS_IN_A_GROUP:
                self._write(side)

    def _write(self, side: Side) -> None:
        if self._waiting[side]:
            self._writers[side].write_table(pa.concat_tables(self._waiting[side]))
        self._waiting[side] = []


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """One JSON object, indented."""
    file.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def write_json_lines(file: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    with file.open("wb") as handle:
        for value in values:
            handle.write(orjson.dumps(value) + b"\n")
