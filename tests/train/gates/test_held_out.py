from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from tests.conversations import LOOK_UP
from train.gates.held_out import load_held_out

IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


def write_rows(file: Path, num_rows: int, *, images: range = range(0), length: int = 8) -> Path:
    """Rows of which the last three tokens are an answer; those in `images` show one."""
    messages = [
        [
            {"role": "user", "content": [IMAGE] if number in images else f"Q {number}"},
            {"role": "assistant", "content": "A"},
        ]
        for number in range(num_rows)
    ]
    table = pa.table(
        {
            "id": [str(number) for number in range(num_rows)],
            "messages": [orjson.dumps(turns).decode() for turns in messages],
            "tools": [
                orjson.dumps([LOOK_UP]).decode() if number == 0 else None
                for number in range(num_rows)
            ],
            "input_ids": [list(range(length))] * num_rows,
            "assistant_mask": [[0] * (length - 3) + [1] * 3] * num_rows,
        }
    )
    pq.write_table(table, file)
    return file


def ids_of(file: Path, num_rows: int) -> list[str]:
    return [row.conversation.id for row in load_held_out(file, num_rows=num_rows, max_length=99)]


def test_rows_are_spread_over_the_file_and_the_same_at_every_call(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.parquet", 101)
    assert ids_of(file, 5) == ["0", "25", "50", "75", "100"] == ids_of(file, 5)


def test_of_fewer_rows_all_are_taken(tmp_path: Path) -> None:
    assert ids_of(write_rows(tmp_path / "rows.parquet", 3), 5) == ["0", "1", "2"]


def test_rows_with_images_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_rows(tmp_path / "rows.parquet", 10, images=range(4))
    with caplog.at_level("INFO"):
        assert ids_of(file, 99) == [str(number) for number in range(4, 10)]
    assert "4 rows" in caplog.text


def test_a_row_holds_its_tokens_turns_and_tools(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.parquet", 2)
    first, second = load_held_out(file, num_rows=2, max_length=99)
    assert first.ids.tolist() == list(range(8))
    assert first.scored.tolist() == [5, 6, 7]
    assert first.prompt_ids.tolist() == list(range(5))
    assert second.conversation.messages[0] == {"role": "user", "content": "Q 1"}
    assert first.conversation.tools == (LOOK_UP,)
    assert second.conversation.tools == ()


def test_long_rows_are_cut_but_not_those_whose_answers_would_be_gone(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.parquet", 2, length=8)
    (row, _) = load_held_out(file, num_rows=2, max_length=7)
    assert row.scored.tolist() == [5, 6]
    with pytest.raises(UserError, match="no answer within 5 tokens"):
        load_held_out(file, num_rows=2, max_length=5)


def test_nothing_but_images_is_told(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.parquet", 4, images=range(4))
    with pytest.raises(UserError, match="of 4, 4 show images"):
        load_held_out(file, num_rows=2, max_length=99)
