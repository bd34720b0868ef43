from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from train.job import TrainFiles
from train.rows import load_rows


def test_rows_are_the_tokens_and_masks_of_the_file(train_files: TrainFiles) -> None:
    table = pq.read_table(train_files.train_rows).to_pylist()
    rows = load_rows(train_files.train_rows)
    assert len(rows) == len(table)
    for number, row in enumerate(table):
        assert rows.input_ids[rows.span(number)].tolist() == row["input_ids"]
        assert rows.assistant_mask[rows.span(number)].tolist() == row["assistant_mask"]
        assert rows.lengths[number] == len(row["input_ids"])


def test_a_limit_takes_the_first_rows(train_files: TrainFiles) -> None:
    first, all_rows = load_rows(train_files.train_rows, limit=3), load_rows(train_files.train_rows)
    assert first.lengths.tolist() == all_rows.lengths[:3].tolist()
    assert first.input_ids.tolist() == all_rows.input_ids[: first.lengths.sum()].tolist()


def test_rows_are_described_by_id_and_place(train_files: TrainFiles) -> None:
    rows = load_rows(train_files.train_rows)
    assert rows.describe([30, 2]) == ["30 (colours.jsonl:31)", "2 (colours.jsonl:3)"]


def test_only_messages_with_images_are_kept(tmp_path: Path) -> None:
    image = '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]'
    table = pa.table(
        {
            "messages": ['[{"role":"user","content":"type image_url"}]', image] * 700,
            "input_ids": [[1, 2, 3]] * 1400,
            "assistant_mask": [[0, 0, 1]] * 1400,
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = load_rows(tmp_path / "rows.parquet", limit=1301)
    assert rows.images == dict.fromkeys(range(1, 1301, 2), image)


def test_no_rows_is_an_error_with_the_file(train_files: TrainFiles) -> None:
    with pytest.raises(UserError, match="no rows"):
        load_rows(train_files.validation_rows, limit=0)
