from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from data.conversation import Conversation, Message, question_and_answer
from evals.rows import load_rows, question_turns, reference_answer
from tests.evals.conftest import chapter_rows, write_rows


def test_rows_come_back_in_file_order(tmp_path: Path) -> None:
    rows = chapter_rows(5, 4)
    assert load_rows(write_rows(tmp_path / "test.parquet", rows)) == rows


def test_question_is_everything_before_the_answer() -> None:
    system = Message(role="system", content="Be brief.")
    row = question_and_answer("Who?", "Me", id="1")
    row = Conversation(id="1", messages=(system, *row.messages))
    assert [turn["content"] for turn in question_turns(row)] == ["Be brief.", "Who?"]
    assert reference_answer(row) == "Me"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (Conversation(id="2", messages=(Message(role="assistant", content="x"),)), "needs a"),
        (
            Conversation(
                id="2",
                messages=(
                    Message(role="user", content="x"),
                    Message(role="user", content="y"),
                ),
            ),
            "needs a",
        ),
        (question_and_answer("Who?", " \n", id="2"), "reference answer is empty"),
        (question_and_answer("Who?", "Me", id="icd/0"), "'icd/0' occurs twice"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(
    tmp_path: Path, row: Conversation, problem: str
) -> None:
    file = write_rows(tmp_path / "test.parquet", [*chapter_rows(0, 1), row])
    with pytest.raises(UserError, match=problem) as caught:
        load_rows(file)
    assert caught.value.where == f"{file}, row 1"


def test_a_missing_or_foreign_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the rows"):
        load_rows(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot read the rows"):
        load_rows(tmp_path / "text.parquet")
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "columns.parquet")
    with pytest.raises(UserError, match="messages"):
        load_rows(tmp_path / "columns.parquet")
