"""Rows on their way through the stage, on disk, so that memory does not grow with their number.

Rows lie in buckets by the first bits of their content's hash: rows of equal content meet in one
bucket, and going through the buckets in order, each sorted, is going through all rows in the order
of their hashes, which depends on nothing but the rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from data.conversation import Conversation

NUM_BUCKETS = 64
SCHEMA = pa.schema(
    [
        ("key", pa.binary(16)),
        ("id", pa.string()),
        ("where", pa.string()),
        ("group", pa.string()),
        ("side", pa.int8()),
        ("source", pa.int16()),
        ("group_hash", pa.uint64()),
        ("question", pa.uint64()),
        ("asked", pa.list_(pa.uint64())),
        ("messages", pa.large_string()),
        ("tools", pa.string()),
        ("rejected", pa.string()),
    ]
)
COMPRESSION = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True)
class Spool:
    """The buckets' files in a folder."""

    folder: Path

    def file(self, bucket: int) -> Path:
        """Where a bucket lies; absent as long as it holds no row."""
        return self.folder / f"{bucket:02d}.arrow"

    def read(self, bucket: int) -> pa.Table:
        """All rows of a bucket, in the order in which they were written."""
        if not self.file(bucket).exists():
            return SCHEMA.empty_table()
        with pa.OSFile(str(self.file(bucket))) as handle:
            return pa.ipc.open_stream(handle).read_all()

    def replace(self, bucket: int, table: pa.Table) -> None:
        """Write a bucket anew."""
        with (
            pa.OSFile(str(self.file(bucket)), "wb") as handle,
            pa.ipc.new_stream(handle, table.schema, options=COMPRESSION) as writer,
        ):
            writer.write_table(table)

    @contextmanager
    def filling(self) -> Iterator["SpoolWriter"]:
        """A writer that puts each row into its bucket."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            yield SpoolWriter(self, stack)


class SpoolWriter:
    """Open files of all buckets that got a row."""

    def __init__(self, spool: Spool, stack: ExitStack) -> None:
        self._spool = spool
        self._stack = stack
        self._writers: dict[int, Any] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; `batch` is sorted by key."""
        buckets = bucket_of(batch.column("key"))
        starts = np.flatnonzero(np.diff(buckets, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(buckets)], strict=True):
            bucket = int(buckets[start])
            if bucket not in self._writers:
                file = self._stack.enter_context(pa.OSFile(str(self._spool.file(bucket)), "wb"))
                self._writers[bucket] = self._stack.enter_context(
                    pa.ipc.new_stream(file, SCHEMA, options=COMPRESSION)
                )
            self._writers[bucket].write_batch(batch.slice(start, end - start))


def bucket_of(keys: pa.Array) -> np.ndarray:
    """The bucket of each key: int64, 0 to NUM_BUCKETS - 1, growing with the key."""
    return np.asarray(key_numbers(keys)[:, 0] >> np.uint64(58), np.int64)


def key_numbers(keys: pa.Array) -> np.ndarray:
    """Keys of 16 bytes as uint64 [rows, 2], in the order of the bytes."""
    data = np.frombuffer(keys.buffers()[1], dtype=">u8")
    own = data[2 * keys.offset : 2 * (keys.offset + len(keys))]
    return np.asarray(own.reshape(-1, 2), np.uint64)


def conversations_of(table: pa.Table | pa.RecordBatch) -> list[Conversation]:
    """The rows as conversations, without their sides."""
    columns = [table.column(name).to_pylist() for name in ("id", "where", "group", "messages")]
    extras = [table.column(name).to_pylist() for name in ("tools", "rejected")]
    return [
        Conversation(
            id=id,
            where=where,
            group=group,
            messages=tuple(orjson.loads(messages)),
            tools=tuple(orjson.loads(tools)) if tools else (),
            rejected=orjson.loads(rejected) if rejected else None,
        )
        for id, where, group, messages, tools, rejected in zip(*columns, *extras, strict=True)
    ]


def batch_of(columns: dict[str, Sequence[Any]]) -> pa.RecordBatch:
    """Rows sorted by key, from columns of Python values named as in `SCHEMA`."""
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    return batch.take(sorted_by_key(batch.column("key")))


def sorted_by_key(keys: pa.Array) -> np.ndarray:
    """Positions of the keys in their order; equal keys keep theirs."""
    numbers = key_numbers(keys)
    return np.asarray(np.lexsort((numbers[:, 1], numbers[:, 0])))
