from pathlib import Path

import numpy as np

from data.conversation import Conversation, ToolCall
from data.steps.spool import (
    NUM_BUCKETS,
    Spool,
    bucket_of,
    conversations_of,
    key_numbers,
    sorted_by_key,
)
from tests.data.spool_rows import spool_batch, spool_row


def filled(folder: Path, num_rows: int, num_batches: int = 3) -> Spool:
    spool = Spool(folder)
    rows = [spool_row(str(n)) for n in range(num_rows)]
    with spool.filling() as writer:
        for start in range(num_batches):
            writer.write(spool_batch(rows[start::num_batches]))
    return spool


def test_every_row_comes_back_once_in_the_bucket_of_its_key(tmp_path: Path) -> None:
    spool = filled(tmp_path, 1000)
    seen = []
    for bucket in range(NUM_BUCKETS):
        table = spool.read(bucket)
        keys = table.column("key").to_pylist()
        assert {key[0] >> 2 for key in keys} <= {bucket}
        seen += table.column("id").to_pylist()
    assert sorted(seen) == sorted(str(n) for n in range(1000))


def test_going_through_sorted_buckets_is_going_through_all_keys_in_order(tmp_path: Path) -> None:
    spool = filled(tmp_path, 500)
    keys = []
    for bucket in range(NUM_BUCKETS):
        table = spool.read(bucket)
        order = sorted_by_key(table.column("key").combine_chunks())
        keys += table.column("key").take(order).to_pylist()
    assert keys == sorted(keys)
    assert len(keys) == 500


def test_a_bucket_without_rows_is_empty(tmp_path: Path) -> None:
    spool = filled(tmp_path, 1, num_batches=1)
    assert sum(spool.read(bucket).num_rows for bucket in range(NUM_BUCKETS)) == 1
    assert sum(spool.file(bucket).exists() for bucket in range(NUM_BUCKETS)) == 1


def test_a_replaced_bucket_holds_what_was_written_last(tmp_path: Path) -> None:
    spool = filled(tmp_path, 1000)
    table = spool.read(7)
    assert table.num_rows > 3
    spool.replace(7, table.slice(1, 2))
    assert spool.read(7).equals(table.slice(1, 2))


def test_keys_are_compared_as_their_bytes_are() -> None:
    batch = spool_batch([spool_row(str(n)) for n in range(64)])
    keys = batch.column("key")
    assert keys.to_pylist() == sorted(keys.to_pylist())
    numbers = key_numbers(keys.slice(3, 5))
    expected = [int.from_bytes(key[:8]) for key in keys.to_pylist()[3:8]]
    assert numbers[:, 0].tolist() == expected
    assert np.all(np.diff(bucket_of(keys)) >= 0)


def test_rows_come_back_as_conversations() -> None:
    call: ToolCall = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = spool_row(
        "q",
        group="g",
        tools='[{"type":"function"}]',
        rejected='{"role":"assistant","content":"no"}',
        messages=[
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
    )
    (conversation,) = conversations_of(spool_batch([row]))
    assert conversation == Conversation(
        id="q",
        where="rows.jsonl:q",
        group="g",
        messages=(
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ),
        tools=({"type": "function"},),
        rejected={"role": "assistant", "content": "no"},
    )
