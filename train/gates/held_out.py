"""Held-out rows for the gates: few, the same ones at every call, from all over the file."""

import logging
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import UserError
from data.conversation import Conversation
from train.gates.scoring import HeldOutRow
from train.rows import IMAGE_PART

logger = logging.getLogger(__name__)


def load_held_out(file: Path, *, num_rows: int, max_length: int) -> list[HeldOutRow]:
    """At most `num_rows` rows of a side as `tunery prepare` wrote it, evenly spread over it.

    max_length: in tokens; what a row has beyond it is cut off. Rows that show images are left out,
    since not every engine takes these, and a line of the log counts them; so are rows of whose
    answers nothing is left. Errors: `UserError` where there is none.
    """
    table = pq.read_table(file, columns=["input_ids", "assistant_mask"])
    has_images = _has_images(file)
    if has_images.any():
        logger.info("%s rows of %s show images: no gate looks at them", has_images.sum(), file)
    is_usable = _is_answered(table["assistant_mask"], max_length) & ~has_images
    usable = np.flatnonzero(is_usable)
    if not len(usable):
        raise UserError(
            f"no row to measure on: of {table.num_rows}, {has_images.sum()} show images, and the "
            f"others have no answer within {max_length} tokens",
            where=file,
            remedy="give more data, or raise data.validation_fraction or model.max_length",
        )
    chosen = usable[np.linspace(0, len(usable) - 1, min(num_rows, len(usable))).astype(int)]
    return _read_rows(file, table, chosen, max_length)


def _read_rows(
    file: Path, table: pa.Table, numbers: np.ndarray, max_length: int
) -> list[HeldOutRow]:
    columns = ["id", "messages"]
    if "tools" in pq.read_schema(file).names:
        columns.append("tools")
    told = pq.read_table(file, columns=columns).take(pa.array(numbers)).to_pylist()
    tokens = table.take(pa.array(numbers)).to_pylist()
    return [
        HeldOutRow(
            conversation=Conversation(
                id=row["id"],
                messages=tuple(orjson.loads(row["messages"])),
                tools=tuple(orjson.loads(row.get("tools") or "[]")),
            ),
            ids=np.array(one["input_ids"][:max_length], np.int32),
            mask=np.array(one["assistant_mask"][:max_length], np.int8),
        )
        for row, one in zip(told, tokens, strict=True)
    ]


def _has_images(file: Path) -> np.ndarray:
    """Of every row; the messages of a million rows are never held together."""
    parts = [
        pc.match_substring(batch.column(0), IMAGE_PART).to_numpy(zero_copy_only=False)
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1000, columns=["messages"])
    ]
    return np.concatenate([np.empty(0, bool), *parts])


def _is_answered(masks: pa.ChunkedArray, max_length: int) -> np.ndarray:
    """Whether a token can be scored: one of an answer, behind the first token and not cut off."""
    lists = masks.cast(pa.large_list(pa.int8())).combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    is_scored = (lists.flatten().to_numpy() == 1) & (place > 0) & (place < max_length)
    return np.bincount(row[is_scored], minlength=len(lengths)) > 0
