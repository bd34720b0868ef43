"""Rows for the spool, made by hand."""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from data.steps.read_rows import asked_hashes, group_hash
from data.steps.spool import batch_of


def spool_row(question: str, answer: str = "a", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    messages = fields.pop("messages", None) or [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    text = orjson.dumps(messages)
    asked = asked_hashes(messages)
    group, source = fields.get("group", ""), fields.get("source", 0)
    row = {
        "key": hashlib.sha256(text).digest()[:16],
        "id": question,
        "where": f"rows.jsonl:{question}",
        "group": group,
        "side": -1,
        "source": source,
        "group_hash": group_hash(group, source),
        "question": asked[-1],
        "asked": asked,
        "messages": text,
        "tools": "",
        "rejected": "",
    }
    return row | fields


def spool_batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return batch_of({name: [row[name] for row in rows] for name in rows[0]})
