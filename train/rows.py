"""Prepared rows as training looks them up: in flat arrays, so that a million fit in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import UserError

# How the prepare stage writes a part of a turn that is an image.
IMAGE_PART = '"type":"image_url"'


@dataclass(frozen=True, eq=False)
class Rows:
    """Tokens and loss masks of rows, one behind the other.

    input_ids (int32) and assistant_mask (int8) have shape (num_tokens,); row n is the stretch from
    offsets[n] to offsets[n + 1]; images: the messages, as JSON, of the rows that hold images.
    """

    file: Path
    input_ids: np.ndarray
    assistant_mask: np.ndarray
    offsets: np.ndarray
    images: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, shape (num_rows,)."""
        return np.diff(self.offsets)

    def span(self, number: int) -> slice:
        """Where a row stands in the flat arrays."""
        return slice(self.offsets[number], self.offsets[number + 1])

    def describe(self, numbers: Sequence[int]) -> list[str]:
        """Id and place of rows, for messages; read from the file when they are needed."""
        table = pq.read_table(self.file, columns=["id", "where"])
        rows = table.take(pa.array(numbers, pa.int64())).to_pylist()
        return [f"{row['id']} ({row['where']})" for row in rows]


def load_rows(file: Path, *, limit: int | None = None) -> Rows:
    """The rows of a side as `tunery prepare` wrote them; the first `limit` of them."""
    table = pq.read_table(file, columns=["input_ids", "assistant_mask"])
    if limit is not None:
        table = table.slice(0, limit)
    if not table.num_rows:
        raise UserError(
            "no rows",
            where=file,
            remedy="give more data, or lower data.validation_fraction and data.test_fraction",
        )
    ids, masks = (
        table[name].cast(pa.large_list(kind)).combine_chunks()
        for name, kind in (("input_ids", pa.int32()), ("assistant_mask", pa.int8()))
    )
    lengths = ids.value_lengths().to_numpy(zero_copy_only=False)
    return Rows(
        file=file,
        input_ids=ids.flatten().to_numpy(),
        assistant_mask=masks.flatten().to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        images=_rows_with_images(file, limit=table.num_rows),
    )


def _rows_with_images(file: Path, *, limit: int) -> dict[int, str]:
    """Messages of the rows that hold images; those of all others are never held in memory."""
    found: dict[int, str] = {}
    start = 0
    for batch in pq.ParquetFile(file).iter_batches(batch_size=1000, columns=["messages"]):
        messages = batch.column(0).slice(0, max(limit - start, 0))
        places = pc.indices_nonzero(pc.match_substring(messages, IMAGE_PART)).to_numpy()
        found |= {start + int(place): messages[int(place)].as_py() for place in places}
        start += len(batch)
    return found
