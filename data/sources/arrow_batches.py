"""Rows in Arrow batches, as Parquet files and data sets on the hub give them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from data.conversation import FixedSide
from data.sources.json_lines import Rows
from data.sources.paths import unreadable

CHUNK_BYTES = 4 << 20
MAX_CHUNK_ROWS = 4000


@dataclass(frozen=True, kw_only=True)
class ArrowChunk:
    """Rows as an Arrow stream, from row `first`, counted from 0.

    class_names: for columns of class numbers the classes' names, which take the numbers' place.
    """

    name: str
    side: FixedSide
    first: int
    data: bytes
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def rows(self) -> Rows:
        """Each row's place and its values by column."""
        with pa.ipc.open_stream(self.data) as reader:
            rows = reader.read_all().to_pylist()
        for number, row in enumerate(rows, start=self.first):
            for column, names in self.class_names.items():
                row[column] = _named(row[column], names)
            yield f"{self.name}[{number}]", row


def arrow_chunk(
    rows: pa.Table | pa.RecordBatch,
    *,
    name: str,
    side: FixedSide,
    first: int,
    class_names: Mapping[str, tuple[str, ...]] | None = None,
) -> ArrowChunk:
    """Rows to be sent to another process: pickled as they are, they would take what they are a
    slice of with them.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return ArrowChunk(
        name=name,
        side=side,
        first=first,
        data=sink.getvalue().to_pybytes(),
        class_names=class_names or {},
    )


def parquet_chunks(file: Path, *, name: str, side: FixedSide) -> Iterator[ArrowChunk]:
    """The rows of a Parquet file. Errors: `UserError` for a file that is none, or is damaged."""
    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_chunk_rows(table.metadata)):
                yield arrow_chunk(batch, name=name, side=side, first=number)
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise unreadable(error, where=file) from error
        raise UserError(
            f"the Parquet file cannot be read: {str(error).splitlines()[0]}",
            where=f"{file}, after row {number:,}" if number else file,
            remedy="fetch or write the file again, or name its `format` if it is another one",
        ) from error


def _named(value: object, names: tuple[str, ...]) -> str | None:
    """A class's name, or those of several, "none" of an empty list; -1 stands for no class."""
    if isinstance(value, list):
        return ", ".join(names[number] for number in value) or "none"
    return names[value] if isinstance(value, int) and value >= 0 else None


def _chunk_rows(metadata: Any) -> int:  # noqa: ANN401 (pyarrow is not typed)
    """Rows that make a chunk of some MiB, however long they are."""
    size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    row_bytes = max(1, size // max(1, metadata.num_rows))
    return int(min(MAX_CHUNK_ROWS, max(1, CHUNK_BYTES // row_bytes)))
