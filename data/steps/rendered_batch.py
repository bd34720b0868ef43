"""Rendered rows as they are written, and what is counted of them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from data.conversation import Conversation, Message, text_of
from data.tokens.rendered import Rendered

# rejected_ids, rejected_mask: the same prompt with the rejected answer, null where there is none.
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("where", pa.string()),
        ("source", pa.int16()),
        ("group", pa.string()),
        ("messages", pa.string()),
        ("tools", pa.string()),
        ("rejected", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("assistant_mask", pa.list_(pa.int8())),
        ("rejected_ids", pa.list_(pa.int32())),
        ("rejected_mask", pa.list_(pa.int8())),
        ("copied_share", pa.float32()),
    ]
)
# What is counted of each written row. side: as in `SIDES`; row: its place in the bucket; length and
# supervised in tokens; dropped: turns cut from its end; answer: hash of its last turn.
STATISTICS = np.dtype(
    [
        ("side", "i1"),
        ("source", "i2"),
        ("row", "i4"),
        ("length", "i4"),
        ("supervised", "i4"),
        ("dropped", "i4"),
        ("answer", "u8"),
        ("preference", "?"),
    ]
)


class RenderedRow(NamedTuple):
    """A row as the model will see it; rejected: with its other answer, where it is a pair."""

    conversation: Conversation
    tokens: Rendered
    rejected: Rendered | None


def holds_images(conversation: Conversation) -> bool:
    """Whether any turn shows an image."""
    return any(not isinstance(turn["content"], str) for turn in conversation.messages)


def to_batch(
    rows: pa.Table, rendered: Sequence[RenderedRow], *, renamed: np.ndarray, copied: np.ndarray
) -> pa.RecordBatch:
    """`ROW_SCHEMA` of spooled rows; renamed and copied: of each as in `BucketDecisions`."""
    ids = rows.column("id").to_pylist()
    for n in np.flatnonzero(renamed):
        # Ids have to be unique; the content's hash tells the rows apart in any order of the files.
        ids[n] = f"{ids[n]} #{rows.column('key')[int(n)].as_py().hex()[:8]}"
    arrays: dict[str, Any] = {
        name: rows.column(name).combine_chunks().cast(ROW_SCHEMA.field(name).type)
        for name in ("where", "source", "group", "tools", "rejected")
    }
    arrays["id"] = pa.array(ids, pa.string())
    arrays["messages"] = pa.array([orjson.dumps(_written(row)) for row in rendered], pa.string())
    tokens = [row.tokens for row in rendered]
    arrays["input_ids"] = _lists([one.input_ids for one in tokens], np.int32)
    arrays["assistant_mask"] = _lists([one.assistant_mask for one in tokens], np.int8)
    rejected = [row.rejected for row in rendered]
    arrays["rejected_ids"] = _lists([one.input_ids if one else None for one in rejected], np.int32)
    arrays["rejected_mask"] = _lists(
        [one.assistant_mask if one else None for one in rejected], np.int8
    )
    arrays["copied_share"] = pa.array(copied, pa.float32())
    return pa.RecordBatch.from_arrays(
        [arrays[field.name] for field in ROW_SCHEMA], schema=ROW_SCHEMA
    )


def count_rows(
    rows: pa.Table, rendered: Sequence[RenderedRow], *, sides: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """`STATISTICS` of spooled rows; sides: codes of theirs; numbers: their places in the bucket."""
    counts = np.empty(len(rendered), STATISTICS)
    counts["side"] = sides
    counts["source"] = rows.column("source").to_numpy()
    counts["row"] = numbers
    counts["length"] = [len(row.tokens.input_ids) for row in rendered]
    counts["supervised"] = [row.tokens.num_supervised for row in rendered]
    counts["dropped"] = [row.tokens.num_dropped_turns for row in rendered]
    answers = [text_of(row.conversation.messages[-1]) for row in rendered]
    counts["answer"] = pl.Series(answers, dtype=pl.String).hash(seed=0).to_numpy()
    counts["preference"] = [row.rejected is not None for row in rendered]
    return counts


def _written(row: RenderedRow) -> tuple[Message, ...]:
    messages = row.conversation.messages
    if row.tokens.num_dropped_turns and holds_images(row.conversation):
        # Training takes the pixels from here: of images that lost their tokens there must be none.
        return messages[: -row.tokens.num_dropped_turns]
    return messages


def _lists(rows: Sequence[Sequence[int] | None], dtype: type[np.number[Any]]) -> pa.Array:
    """A column of lists, null where a row has none."""
    missing = np.array([row is None for row in rows], bool)
    if missing.all():
        return pa.nulls(len(rows), pa.list_(pa.from_numpy_dtype(dtype)))
    offsets = np.cumsum([0, *(len(row) if row else 0 for row in rows)], dtype=np.int32)
    flat = np.fromiter(chain.from_iterable(row for row in rows if row), dtype, offsets[-1])
    return pa.ListArray.from_arrays(offsets, pa.array(flat), mask=pa.array(missing))
