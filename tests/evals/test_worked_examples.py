import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from configs.errors import UserError
from data.conversation import Conversation, Message, ToolCall, question_and_answer
from evals import rows, worked_examples
from evals.prompts import asked_text
from evals.rows import reference_answer
from evals.worked_examples import ExampleCandidates, choose_examples, load_examples
from tests.evals.conftest import chapter_rows, write_rows

CALL: ToolCall = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look_up", "arguments": "{}"},
}


def calling_row(name: str) -> Conversation:
    answer: Message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    return Conversation(id=name, messages=(Message(role="user", content="Who?"), answer))


def test_examples_are_the_same_for_the_same_seed() -> None:
    some = chapter_rows(0, 60)
    chosen = choose_examples(some, 4, seed=1)
    assert chosen == choose_examples(some[::-1], 4, seed=1)
    assert chosen != choose_examples(some, 4, seed=2)


def test_examples_are_short_and_answer_differently() -> None:
    some = [question_and_answer("word " * (n + 1), f"answer {n % 7}", id=str(n)) for n in range(60)]
    chosen = choose_examples(some, 5, seed=3)
    assert len({reference_answer(row) for row in chosen}) == 5
    assert all(int(row.id) < 20 for row in chosen)


def test_longer_rows_are_taken_where_short_ones_answer_alike() -> None:
    some = [question_and_answer("q" * (n + 1), "yes", id=str(n)) for n in range(30)]
    some.append(question_and_answer("q" * 40, "no", id="no"))
    chosen = choose_examples(some, 3, seed=3)
    assert [reference_answer(row) for row in chosen[:2]] == ["yes", "no"]
    assert len(chosen) == 3


def test_too_few_rows_for_the_examples_is_a_user_error() -> None:
    with pytest.raises(UserError, match="3 worked examples") as caught:
        choose_examples(chapter_rows(0, 2), 3, seed=1)
    assert "num_examples" in (caught.value.remedy or "")
    assert choose_examples([], 0, seed=1) == []


def test_rows_that_call_tools_or_answer_nothing_are_no_examples(tmp_path: Path) -> None:
    plain = chapter_rows(0, 4)
    others = [calling_row(f"call {n}") for n in range(20)]
    silent = question_and_answer("Who?", " ", id="silent")
    file = write_rows(tmp_path / "train.parquet", [*others, silent, *plain])
    assert {row.id for row in load_examples(file, 4, seed=1)} == {row.id for row in plain}


def test_rows_that_ask_what_is_asked_are_left_out() -> None:
    candidates = ExampleCandidates(seed=1)
    for row in chapter_rows(0, 5):
        candidates.offer(row)
    asked = {asked_text(row.messages[:-1]) for row in chapter_rows(1, 3)}
    assert {row.id for row in candidates.choose(4, asked=asked)} == {"icd/0", "icd/4"}


def test_of_many_rows_few_are_parsed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worked_examples, "NUM_CANDIDATES", 30)
    parsed = 0
    parse = rows.PreparedRow.parse

    def counting(row: rows.PreparedRow) -> Conversation:
        nonlocal parsed
        parsed += 1
        return parse(row)

    monkeypatch.setattr(rows.PreparedRow, "parse", counting)
    file = write_rows(tmp_path / "train.parquet", chapter_rows(0, 5000))
    chosen = load_examples(file, 4, seed=1)
    # 30 of 5,000 in random order: about 30 (1 + ln(5,000 / 30)) = 183.
    assert 30 <= parsed < 300
    assert ids(chosen) == ids(choose_examples(chapter_rows(0, 5000)[::-1], 4, seed=1))


def test_no_examples_read_no_file(tmp_path: Path) -> None:
    assert load_examples(tmp_path / "none.parquet", 0, seed=1) == []


def ids(some: Sequence[Conversation]) -> str:
    return json.dumps([row.id for row in some])
