import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from data.conversation import Conversation, Message, ToolCall, question_and_answer
from evals.rows import is_plain, load_rows, question_turns, reference_answer
from tests.evals.conftest import chapter_rows, write_rows


def test_rows_come_back_in_file_order(tmp_path: Path) -> None:
    rows = chapter_rows(5, 4)
    loaded = load_rows(write_rows(tmp_path / "test.parquet", rows))
    assert [(row.id, row.messages) for row in loaded] == [(row.id, row.messages) for row in rows]


def test_places_groups_and_tools_come_with_a_row(tmp_path: Path) -> None:
    (row,) = chapter_rows(0, 1)
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    records = {
        "id": [row.id],
        "where": ["rows.jsonl:7"],
        "group": ["patient 3"],
        "source": [2],
        "messages": [json.dumps(row.messages)],
        "tools": [json.dumps(tools)],
    }
    pq.write_table(pa.table(records), tmp_path / "test.parquet")
    (loaded,) = load_rows(tmp_path / "test.parquet")
    assert (loaded.where, loaded.group, loaded.tools) == ("rows.jsonl:7", "2/patient 3", (*tools,))


def test_rows_beyond_the_limit_are_not_looked_at(tmp_path: Path) -> None:
    rows = [*chapter_rows(0, 3), question_and_answer("Who?", "", id="broken")]
    file = write_rows(tmp_path / "test.parquet", rows)
    assert [row.id for row in load_rows(file, limit=3)] == ["icd/0", "icd/1", "icd/2"]
    with pytest.raises(UserError, match="is empty"):
        load_rows(file)


def test_an_answer_may_be_nothing_but_tool_calls(tmp_path: Path) -> None:
    call: ToolCall = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look_up", "arguments": "{}"},
    }
    answer: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
    row = Conversation(id="1", messages=(Message(role="user", content="Who?"), answer))
    (loaded,) = load_rows(write_rows(tmp_path / "test.parquet", [row]))
    assert loaded.messages[-1] == answer
    assert not is_plain(loaded)
    assert is_plain(chapter_rows(0, 1)[0])


def test_question_is_everything_before_the_answer() -> None:
    system = Message(role="system", content="Be brief.")
    row = question_and_answer("Who?", "Me", id="1")
    row = Conversation(id="1", messages=(system, *row.messages))
    assert [turn["content"] for turn in question_turns(row)] == ["Be brief.", "Who?"]
    assert reference_answer(row) == "Me"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            Conversation(id="2", messages=(Message(role="assistant", content="x"),)),
            "without a question",
        ),
        (
            Conversation(
                id="2",
                messages=(
                    Message(role="user", content="x"),
                    Message(role="user", content="y"),
                ),
            ),
            "does not end with the assistant",
        ),
        (question_and_answer("Who?", " \n", id="2"), "expected answer is empty"),
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
