from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from train.pairs import LogProbs, PairCollator, Pairs, load_pairs
from train.rows import Rows


def side(*rows: tuple[list[int], list[int]]) -> Rows:
    return Rows(
        file=Path("rows.parquet"),
        input_ids=np.concatenate([ids for ids, _ in rows]).astype(np.int32),
        assistant_mask=np.concatenate([mask for _, mask in rows]).astype(np.int8),
        offsets=np.cumsum([0, *(len(ids) for ids, _ in rows)]),
        images={},
    )


@pytest.fixture
def pairs() -> Pairs:
    """Two pairs; the second has an earlier answer, and a token behind its last one."""
    preferred = side(
        ([1, 2, 3], [0, 1, 1]),
        ([4, 5, 6, 7, 8, 9], [0, 1, 0, 1, 1, 0]),
    )
    rejected = side(
        ([1, 2], [0, 1]),
        ([4, 5, 6, 7, 9], [0, 1, 0, 1, 0]),
    )
    return Pairs(preferred, rejected)


# Micro-batches.


def test_preferred_answers_come_first_and_rows_are_padded_on_the_right(pairs: Pairs) -> None:
    batch = PairCollator(pairs, pad_token_id=99)([{"rows": [1]}, {"rows": [0]}])
    assert batch["input_ids"].tolist() == [
        [4, 5, 6, 7, 8, 9],
        [1, 2, 3, 99, 99, 99],
        [4, 5, 6, 7, 9, 99],
        [1, 2, 99, 99, 99, 99],
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 3, 5, 2]
    assert set(batch) == {"input_ids", "attention_mask", "completion_mask"}


def test_the_last_answer_alone_is_compared(pairs: Pairs) -> None:
    batch = PairCollator(pairs, pad_token_id=99)([{"rows": [1]}, {"rows": [0]}])
    assert batch["completion_mask"].tolist() == [
        [0, 0, 0, 1, 1, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]


def test_each_pair_brings_what_the_reference_said_of_it(pairs: Pairs) -> None:
    collate = PairCollator(pairs, pad_token_id=99)
    collate.reference = LogProbs(np.array([-1, -2], np.float32), np.array([-3, -4], np.float32))
    batch = collate([{"rows": [1]}, {"rows": [0]}])
    assert batch["ref_chosen_logps"].tolist() == [-2, -1]
    assert batch["ref_rejected_logps"].tolist() == [-4, -3]


def test_the_length_of_a_pair_is_that_of_both_answers(pairs: Pairs) -> None:
    assert len(pairs) == 2
    assert pairs.lengths.tolist() == [5, 11]


# Files.


def write(file: Path, rejected: list[list[int] | None], *, with_tokens: bool = True) -> Path:
    columns = {
        "id": pa.array([f"row {n}" for n in range(len(rejected))]),
        "where": pa.array([f"rows.jsonl:{n + 1}" for n in range(len(rejected))]),
        "messages": pa.array(["[]"] * len(rejected)),
        "input_ids": pa.array([[1, 2, n] for n in range(len(rejected))], pa.list_(pa.int32())),
        "assistant_mask": pa.array([[0, 1, 1]] * len(rejected), pa.list_(pa.int8())),
    }
    if with_tokens:
        masks = [None if ids is None else [0, *[1] * (len(ids) - 1)] for ids in rejected]
        columns |= {
            "rejected_ids": pa.array(rejected, pa.list_(pa.int32())),
            "rejected_mask": pa.array(masks, pa.list_(pa.int8())),
        }
    # Several row groups, as of many rows.
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def test_both_sides_of_a_file_are_loaded(tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", [[1, 9], [1, 8, 8, 8], [1, 7]])
    pairs = load_pairs(file)
    assert pairs.preferred.input_ids.tolist() == [1, 2, 0, 1, 2, 1, 1, 2, 2]
    assert pairs.rejected.input_ids.tolist() == [1, 9, 1, 8, 8, 8, 1, 7]
    assert pairs.rejected.assistant_mask.tolist() == [0, 1, 0, 1, 1, 1, 0, 1]
    assert pairs.rejected.offsets.tolist() == [0, 2, 6, 8]
    assert load_pairs(file, limit=2).rejected.input_ids.tolist() == [1, 9, 1, 8, 8, 8]


def test_rows_that_are_no_pairs_are_told(tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", [[1, 9], None, [1, 7], None])
    with pytest.raises(UserError) as caught:
        load_pairs(file)
    assert caught.value.what == (
        "method preference needs pairs: 2 of 4 rows have no rejected answer, such as row 1 "
        "(rows.jsonl:2)"
    )
    assert len(load_pairs(file, limit=1)) == 1


def test_rows_of_an_earlier_form_are_told(tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", [[1]], with_tokens=False)
    with pytest.raises(UserError, match="prepared without the tokens of rejected answers"):
        load_pairs(file)
