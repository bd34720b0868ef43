import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.data_schema import (
    ContaminationConfig,
    FilesSource,
    HubDataSource,
    PersonalDataConfig,
    TemplateShape,
)
from configs.errors import UserError
from data.conversation import Conversation
from data.prepare import prepare
from data.steps.rendered_batch import ROW_SCHEMA
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer, render_conversations
from tests.data.preparing import SIDES, PrepareRows, chat, group_on, questions
from tests.data.sources.damaged_lines import DAMAGED_LINES
from tests.full_disk import limited_file_size

FILES = [
    "clusters.jsonl",
    "contamination.jsonl",
    "facts.json",
    "rejects.jsonl",
    "report.html",
    "test.parquet",
    "train.parquet",
    "validation.parquet",
]


# What is written.


def test_every_usable_row_is_written_with_what_the_model_will_see(
    run_prepare: PrepareRows, tiny_checkpoint: Path
) -> None:
    facts = run_prepare(questions(40))
    assert sorted(file.name for file in run_prepare.folder.iterdir()) == FILES
    for side in SIDES:
        assert pq.read_schema(run_prepare.folder / f"{side}.parquet").equals(ROW_SCHEMA)
    rows = run_prepare.all_rows()
    assert {row["messages"][0]["content"] for row in rows} == {
        f"Which number is {n}?" for n in range(40)
    }
    tokenizer = load_tokenizer(tiny_checkpoint)
    conversations = [Conversation(id="", messages=tuple(row["messages"])) for row in rows]
    rendered = render_conversations(conversations, load_renderer(tokenizer), max_length=512)
    assert [row["input_ids"] for row in rows] == [one.input_ids for one in rendered]
    assert [row["assistant_mask"] for row in rows] == [one.assistant_mask for one in rendered]
    assert facts["num_read"] == 40
    assert facts["num_rows"] == {side: len(run_prepare.rows(side)) for side in SIDES}
    assert facts["num_tokens"] == {
        side: sum(len(row["input_ids"]) for row in run_prepare.rows(side)) for side in SIDES
    }
    num_supervised = sum(sum(row["assistant_mask"]) for row in rows)
    num_tokens = sum(len(row["input_ids"]) for row in rows)
    assert facts["supervised_share"] == round(num_supervised / num_tokens, 4)
    assert (facts["num_rejects"], facts["dropped"], facts["num_truncated"]) == (0, {}, 0)


def test_running_twice_writes_the_same_bytes(run_prepare: PrepareRows) -> None:
    lines = [*questions(40), *(line for line, _ in DAMAGED_LINES), *questions(2)]
    first = run_prepare(lines)
    before = {file.name: file.read_bytes() for file in run_prepare.folder.iterdir()}
    assert run_prepare(lines) == first
    assert {file.name: file.read_bytes() for file in run_prepare.folder.iterdir()} == before


def test_the_order_of_the_lines_does_not_matter(run_prepare: PrepareRows) -> None:
    lines = [row | {"id": str(n)} for n, row in enumerate(questions(40))]

    def sides() -> list[list[dict[str, Any]]]:
        run_prepare(lines)
        return [[row | {"where": ""} for row in run_prepare.rows(side)] for side in SIDES]

    before = sides()
    lines.reverse()
    assert sides() == before


def test_the_commonest_answers_are_told_as_they_are(run_prepare: PrepareRows) -> None:
    answers = ["yes"] * 30 + ["no"] * 20 + ["maybe"] * 10
    run_prepare([chat(f"Which number is {n}?", answer) for n, answer in enumerate(answers)])
    told = run_prepare.facts()["answers"]
    assert told == {
        "num_different": 3,
        "commonest": [
            {"text": "yes", "num_rows": 30},
            {"text": "no", "num_rows": 20},
            {"text": "maybe", "num_rows": 10},
        ],
        "largest_share": 0.5,
    }


# No row is lost.


def test_damaged_lines_are_rejected_with_line_and_reason(run_prepare: PrepareRows) -> None:
    good = questions(40)
    mixed = [line for damaged, _ in DAMAGED_LINES for line in (damaged, good.pop())]
    facts = run_prepare([*mixed, *good])
    expected = [
        (f"rows.jsonl:{2 * number + 1}", reason) for number, (_, reason) in enumerate(DAMAGED_LINES)
    ]
    assert len(expected) >= 20
    found = [(reject["where"], reject["reason"]) for reject in run_prepare.rejects()]
    # What is broken as JSON is told in the words of the library that reads it.
    assert [
        (where, told[: len(reason)])
        for (where, told), (_, reason) in zip(found, expected, strict=True)
    ] == expected
    assert facts["num_rejects"] == len(expected)
    assert facts["num_read"] == 40 + len(expected)
    assert sum(facts["num_rows"].values()) == 40


def test_rows_read_are_rows_written_rejected_or_dropped(run_prepare: PrepareRows) -> None:
    lines: list[object] = [
        *questions(60),
        *questions(5),
        *(line for line, _ in DAMAGED_LINES),
        chat("Too long", "x" * 400),
        chat("Which is cut?", "a", "b", "x" * 400),
        chat("Which is left?", "a", "Thanks!"),
    ]
    facts = run_prepare(lines, max_length=150, max_rows=50)
    assert facts["num_read"] == len(lines)
    assert facts["dropped"] == {"exact duplicate of another row": 5, "beyond data.max_rows": 13}
    written = sum(facts["num_rows"].values())
    assert written == len(run_prepare.all_rows())
    assert written + len(run_prepare.rejects()) + sum(facts["dropped"].values()) == len(lines)


def test_rows_that_differ_in_white_space_only_are_one_row(run_prepare: PrepareRows) -> None:
    facts = run_prepare([*questions(30), chat(" Which number is 3?\n", "The number is 3. ")])
    assert facts["dropped"] == {"exact duplicate of another row": 1}


def test_a_smaller_limit_keeps_a_part_of_the_same_rows(run_prepare: PrepareRows) -> None:
    kept = {}
    for limit in (20, 30):
        run_prepare(questions(60), max_rows=limit)
        kept[limit] = {row["messages"][0]["content"] for row in run_prepare.all_rows()}
        assert len(kept[limit]) == limit
    assert kept[20] < kept[30]


# Long rows and unanswered turns.


def test_a_last_user_turn_that_nobody_answers_is_cut(run_prepare: PrepareRows) -> None:
    facts = run_prepare([*questions(30), chat("Which colour?", "Green.", "Thanks!")])
    (row,) = [row for row in run_prepare.all_rows() if "colour" in row["messages"][0]["content"]]
    assert [turn["content"] for turn in row["messages"]] == ["Which colour?", "Green."]
    assert facts["num_unanswered_turns_cut"] == 1


def test_long_rows_are_cut_for_training_and_rejected_for_testing(run_prepare: PrepareRows) -> None:
    config = run_prepare.config()
    train, test = group_on("train", config), group_on("test", config)
    facts = run_prepare(
        [
            *questions(30),
            chat("Which is it?", "a", "And now?", "x" * 300, id="trained", group=train),
            chat("Who is it?", "a", "And now?", "x" * 300, id="tested", group=test),
            chat("Why is it?", "x" * 300, id="hopeless", group=train),
        ],
        max_length=100,
    )
    assert facts["num_truncated"] == 1
    assert {reject["where"]: reject["reason"] for reject in run_prepare.rejects()} == {
        "rows.jsonl:33": "cut to 100 tokens, no assistant turn is left",
        "rows.jsonl:32": "a test row of more than 100 tokens",
    }
    assert facts["num_rejects"] == 2
    (trained,) = [row for row in run_prepare.rows("train") if row["id"] == "trained"]
    assert len(trained["input_ids"]) <= 100
    assert sum(trained["assistant_mask"]) == 2


# The split.


def test_no_question_is_both_tested_and_trained_on(run_prepare: PrepareRows) -> None:
    config = run_prepare.config()
    shared = [chat("Which?", f"in {side}", group=group_on(side, config), id=side) for side in SIDES]
    facts = run_prepare([*questions(40), *shared])
    assert facts["num_rejects"] == 0
    found = {row["id"]: side for side in SIDES for row in run_prepare.rows(side)}
    assert len({found[side] for side in SIDES}) == 1


@pytest.mark.parametrize(
    "row", [chat("WHICH\n is it?", "other"), chat("Which is", "what?", "it?", "other")]
)
def test_a_question_in_other_words_of_the_same_sound_stays_on_one_side(
    run_prepare: PrepareRows, row: dict[str, object]
) -> None:
    config = run_prepare.config()
    tested = chat("Which is it?", "this", group=group_on("test", config), id="tested")
    run_prepare([*questions(40), tested, row | {"group": group_on("train", config), "id": "other"}])
    found = {row["id"]: side for side in SIDES for row in run_prepare.rows(side)}
    assert found["tested"] == found["other"]


def test_a_row_that_asks_on_its_way_what_is_tested_is_not_trained_on(
    run_prepare: PrepareRows,
) -> None:
    config = run_prepare.config()
    tested = chat("Which is it?", "this", group=group_on("test", config), id="tested")
    other = chat("Which is it?", "other", "And then?", "more", group=group_on("train", config))
    run_prepare([*questions(40), tested, other])
    assert run_prepare.rejects() == [
        {"where": "rows.jsonl:42", "reason": "asks the same as a row of the test set"}
    ]
    assert "tested" in {row["id"] for row in run_prepare.rows("test")}


def test_a_row_that_only_shares_its_answer_is_kept(run_prepare: PrepareRows) -> None:
    config = run_prepare.config()
    tested = chat("Which is it?", "this", group=group_on("test", config))
    trained = chat("Who is it?", "this", group=group_on("train", config))
    run_prepare([*questions(40), tested, trained])
    assert run_prepare.rejects() == []


@pytest.mark.usefixtures("own_datasets_cache")
def test_of_equal_rows_in_both_official_splits_the_tested_one_is_kept(
    run_prepare: PrepareRows,
) -> None:
    folder = run_prepare.place / "official"
    folder.mkdir()
    for name, numbers in (("train", range(40)), ("test", range(30, 50))):
        rows = [{"q": f"Question {n}", "a": str(n)} for n in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = HubDataSource(
        kind="hub",
        id=str(folder),
        test_split="test",
        shape=TemplateShape(kind="template", prompt="{{ q }}", answer="{{ a }}"),
        licence="CC0-1.0",
    )
    facts = run_prepare([], source=source, contamination=ContaminationConfig(max_share=0.5))
    assert facts["dropped"] == {"exact duplicate of another row": 10}
    tested = {int(row["messages"][1]["content"]) for row in run_prepare.rows("test")}
    assert tested == set(range(30, 50))
    assert facts["num_rows"]["train"] + facts["num_rows"]["validation"] == 30


def test_rows_of_a_group_stay_on_one_side(run_prepare: PrepareRows) -> None:
    run_prepare([row | {"group": f"doc {n // 4}"} for n, row in enumerate(questions(120))])
    groups = [{row["group"] for row in run_prepare.rows(side)} for side in SIDES]
    assert sum(len(group) for group in groups) == len(set.union(*groups)) == 30


def test_rows_keep_their_side_when_the_file_grows(run_prepare: PrepareRows) -> None:
    def sides() -> dict[str, str]:
        return {
            row["messages"][0]["content"]: side for side in SIDES for row in run_prepare.rows(side)
        }

    run_prepare(questions(40))
    before = sides()
    run_prepare(questions(100))
    after = sides()
    assert len(after) == 100
    assert {question: after[question] for question in before} == before


# The system prompt.


def test_the_system_prompt_stands_once_before_every_row(run_prepare: PrepareRows) -> None:
    own = {
        "messages": [
            {"role": "system", "content": "Own."},
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": "That."},
        ]
    }
    run_prepare([*questions(40), own], system_prompt="Name the number.")
    rows = run_prepare.all_rows()
    assert len(rows) == 41
    for row in rows:
        roles = [turn["role"] for turn in row["messages"]]
        assert roles == ["system", "user", "assistant"]
        question = row["messages"][1]["content"]
        expected = "Own." if question == "Which?" else "Name the number."
        assert row["messages"][0]["content"] == expected


def test_the_system_prompt_moves_no_row_to_another_side(run_prepare: PrepareRows) -> None:
    sides = []
    for prompt in (None, "Name the number."):
        run_prepare(questions(60), system_prompt=prompt, max_rows=50)
        sides.append([[row["id"] for row in run_prepare.rows(side)] for side in SIDES])
    assert sides[0] == sides[1]


def test_rows_with_a_system_turn_of_their_own_are_told_apart_by_it(
    run_prepare: PrepareRows,
) -> None:
    """The document stands in the system turn, and the question is always the same."""
    rows = [
        {"messages": [{"role": "system", "content": f"Document {n}"}, *row]}
        for n in range(60)
        if isinstance(row := chat("Summarize.", f"It is {n}.")["messages"], list)
    ]
    facts = run_prepare(rows)
    assert facts["num_rejects"] == 0
    assert min(facts["num_rows"].values()) > 5


def test_without_a_system_prompt_none_is_added(run_prepare: PrepareRows) -> None:
    run_prepare(questions(40))
    assert {row["messages"][0]["role"] for row in run_prepare.all_rows()} == {"user"}


# What cannot be prepared leaves nothing behind.


def test_a_split_without_test_rows_is_refused(run_prepare: PrepareRows) -> None:
    with pytest.raises(UserError) as caught:
        run_prepare(questions(40), test_fraction=1e-9)
    assert caught.value.what == "the split has no test rows, 40 rows in all"
    assert caught.value.remedy is not None
    assert "data.test_fraction" in caught.value.remedy
    assert list(run_prepare.folder.parent.iterdir()) == []


def test_a_split_without_validation_rows_is_refused(run_prepare: PrepareRows) -> None:
    with pytest.raises(UserError) as caught:
        run_prepare(questions(40), validation_fraction=1e-9)
    assert caught.value.what == "the split has no validation rows, 40 rows in all"
    assert caught.value.remedy is not None
    assert "data.validation_fraction" in caught.value.remedy


def test_rows_that_are_all_too_long_are_refused(run_prepare: PrepareRows) -> None:
    with pytest.raises(UserError) as caught:
        run_prepare(questions(40), max_length=30)
    assert caught.value.what == (
        "the split has no train and no validation and no test rows, 0 rows in all "
        "(rejected: 40 × cut to 30 tokens, no assistant turn is left)"
    )
    assert list(run_prepare.folder.parent.iterdir()) == []


def test_a_file_without_rows_is_refused(run_prepare: PrepareRows) -> None:
    with pytest.raises(UserError, match="there are no rows"):
        run_prepare([])
    assert list(run_prepare.folder.parent.iterdir()) == []


def test_a_source_without_usable_rows_is_refused(run_prepare: PrepareRows) -> None:
    rows = [chat("Whose is it?", f"Ask ann{n}@example.org.") for n in range(3)]
    with pytest.raises(UserError, match="the sources hold no usable row") as caught:
        run_prepare(rows, personal_data=PersonalDataConfig(action="drop"))
    assert "3 × holds personal data (email)" in caught.value.what
    assert list(run_prepare.folder.parent.iterdir()) == []


@pytest.mark.parametrize("num_bytes", [0, 500, 5000], ids=["rows", "more rows", "report"])
def test_a_full_disk_is_told_and_leaves_nothing(run_prepare: PrepareRows, num_bytes: int) -> None:
    run_prepare(questions(40))
    sizes = {file.name: file.stat().st_size for file in run_prepare.folder.iterdir()}
    assert max(sizes.values()) > 5000
    shutil.rmtree(run_prepare.folder)
    (run_prepare.place / "rows.jsonl").rename(run_prepare.place / "kept.jsonl")
    source = FilesSource(kind="files", path=run_prepare.place / "kept.jsonl")
    config = run_prepare.config(source=source)
    with limited_file_size(num_bytes), pytest.raises(UserError, match="cannot write: ") as caught:
        prepare(config, run_prepare.folder)
    assert caught.value.where == str(run_prepare.folder)
    assert list(run_prepare.folder.parent.iterdir()) == []


def test_what_was_prepared_before_stays_when_the_new_rows_cannot_be(
    run_prepare: PrepareRows,
) -> None:
    run_prepare(questions(40))
    before = {file.name: file.read_bytes() for file in run_prepare.folder.iterdir()}
    with pytest.raises(UserError):
        run_prepare(questions(1))
    assert {file.name: file.read_bytes() for file in run_prepare.folder.iterdir()} == before
