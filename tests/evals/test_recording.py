import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.evaluation_schema import Price
from data.conversation import question_and_answer
from evals.asked import Asked
from evals.recording import AskedBetween, check_matches, open_recording, write_recording
from evals.task import EvaluationTask, Question
from evals.tasks import log_name
from tests.evals.recorded_rows import HOST, answers_to, build_task, record

PRICE = Price(input_per_million=0.1, output_per_million=0.3, currency="EUR")
Change = Callable[[EvaluationTask], EvaluationTask]
TWO_DAYS = AskedBetween(datetime(2026, 3, 1, 23, tzinfo=UTC), datetime(2026, 3, 2, 1, tzinfo=UTC))


@pytest.fixture
def task() -> EvaluationTask:
    return build_task(temperature=0.7, num_epochs=2)


@pytest.fixture
def file(tmp_path: Path, task: EvaluationTask) -> Path:
    return record(tmp_path / "new folder" / "big.jsonl", task, price=PRICE, asked=TWO_DAYS)


def edit(file: Path, line: int, **changes: object) -> None:
    lines = file.read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | changes)
    file.write_text("\n".join(lines) + "\n")


def test_a_recording_gives_back_every_answer(file: Path, task: EvaluationTask) -> None:
    recording = open_recording(file)
    asked = [(task, False), (task, True)]
    given = answers_to(asked)
    assert len(recording.answers) == sum(len(answers) for answers in given.values()) == 12
    for name, answers in given.items():
        for one in answers:
            held = recording.answers[Asked(name, one.id, one.epoch)]
            assert held["text"] == one.text
            assert tuple(held["tool_calls"]) == one.tool_calls
            assert held["stop_reason"] == one.stop_reason
            assert held["seconds"] == one.seconds
            tokens = held["prompt_tokens"], held["completion_tokens"]
            assert tokens == (one.prompt_tokens, one.completion_tokens)
    assert recording.price == PRICE
    assert (recording.name, recording.model) == ("The big one", "big-2503")
    assert recording.describe() == (
        "12 answers of big-2503 at https://host.example/v1, asked 2026-03-01 to 2026-03-02"
    )


def test_the_first_line_says_what_the_file_is(file: Path, task: EvaluationTask) -> None:
    header = json.loads(file.read_text().splitlines()[0])
    assert header["format"] == "tunery-recording"
    assert header["num_answers"] == 12
    assert set(header["versions"]) == {"tunery", "inspect-ai"}
    assert header["tasks"][1] == {
        "task": "terms",
        "prompt": "2 examples",
        "log": log_name(task, with_examples=True),
        "metric": "normalized_match",
        "licence": "CC0-1.0",
        "temperature": 0.7,
        "max_tokens": 16,
        "num_epochs": 2,
        "num_questions": 3,
    }


def test_keys_and_credentials_are_not_in_the_file(file: Path) -> None:
    text = file.read_text()
    assert "https://host.example/v1" in text
    assert not any(secret in text for secret in ("sk-secret", "ann", "token=t"))


def test_prompts_are_written_only_where_they_are_asked_for(tmp_path: Path) -> None:
    task = build_task()
    without = record(tmp_path / "a.jsonl", task).read_text()
    assert "Term" not in without
    full = record(tmp_path / "b.jsonl", task, with_prompts=True)
    assert "Term 2 – “schön”?" in full.read_text(), "people read it: no escapes"
    assert len(open_recording(full).answers) == 6


def test_the_same_answers_give_the_same_bytes(tmp_path: Path, file: Path) -> None:
    task = build_task(temperature=0.7, num_epochs=2)
    again = record(tmp_path / "again.jsonl", task, price=PRICE, asked=TWO_DAYS)
    assert again.read_bytes() == file.read_bytes()


def test_a_failed_write_leaves_the_file_that_stood_there(tmp_path: Path) -> None:
    task = build_task()
    file = record(tmp_path / "r.jsonl", task)
    before = file.read_bytes()
    with pytest.raises(AssertionError, match="q/1 has no answer 1"):
        write_recording(
            file,
            target=HOST,
            tasks=[(task, False)],
            answers={"terms": answers_to([(task, False)])["terms"][:1]},
        )
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    # The partial file stands beside the final one, so this is what is written.
    (tmp_path / ".r.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot write"):
        record(tmp_path / "r.jsonl", build_task())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"hello\n", "first line is not JSON"),
        (b"", "first line is not JSON"),
        (b'{"messages": []}\n', "first line does not say so"),
        (b"[1]\n", "first line does not say so"),
        (b'{"format": "tunery-recording", "version": 1}\n', "no number of answers"),
    ],
)
def test_something_else_is_not_taken_for_a_recording(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "r.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"no recording: .*{why}") as caught:
        open_recording(file)
    assert caught.value.where == str(file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the recording: No such file"):
        open_recording(tmp_path / "none.jsonl")


def test_a_newer_version_is_told_apart(file: Path) -> None:
    edit(file, 0, version=2)
    with pytest.raises(UserError, match=r"of version 2; this Tunery reads version 1") as caught:
        open_recording(file)
    assert "update Tunery" in (caught.value.remedy or "")


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_cut_file_is_noticed(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=r"incomplete|changed since it was written"):
        open_recording(file)


def test_missing_lines_are_counted(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:6]))
    with pytest.raises(UserError, match="header tells of 12 answers, 5 are there"):
        open_recording(file)


def test_an_edited_answer_is_noticed(file: Path) -> None:
    edit(file, 3, text="Skin")
    with pytest.raises(UserError, match="changed since it was written: its checksum"):
        open_recording(file)


def test_an_edited_header_is_noticed(file: Path) -> None:
    edit(file, 0, model="bigger-2503")
    with pytest.raises(UserError, match="changed since it was written: its checksum"):
        open_recording(file)


def test_line_ends_that_a_mail_program_has_changed_do_no_harm(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(open_recording(file).answers) == 12


def test_an_answer_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    task = build_task(2)
    twice = dataclasses.replace(task, questions=(task.questions[0], task.questions[0]))
    write_recording(
        tmp_path / "r.jsonl",
        target=HOST,
        tasks=[(twice, False)],
        answers=answers_to([(twice, False)]),
    )
    with pytest.raises(UserError, match=r"answers q/0 \(task terms, epoch 1\) twice") as caught:
        open_recording(tmp_path / "r.jsonl")
    assert (caught.value.where or "").endswith("line 3")


def test_what_was_recorded_matches(file: Path, task: EvaluationTask) -> None:
    check_matches(open_recording(file), [(task, False), (task, True)])


def test_a_recording_of_more_than_is_asked_matches(file: Path, task: EvaluationTask) -> None:
    fewer = dataclasses.replace(
        task, questions=task.questions[1:], num_epochs=1, metric="token_f1", licence=""
    )
    check_matches(open_recording(file), [(fewer, True)])


def changed_question(task: EvaluationTask, **changes: Any) -> EvaluationTask:  # noqa: ANN401 (the fields have several types)
    questions = list(task.questions)
    questions[1] = dataclasses.replace(questions[1], **changes)
    return dataclasses.replace(task, questions=tuple(questions))


def new_question(task: EvaluationTask) -> EvaluationTask:
    new: Question = dataclasses.replace(task.questions[0], id="q/new")
    return dataclasses.replace(task, questions=(*task.questions, new))


@pytest.mark.parametrize(
    ("change", "with_examples", "told"),
    [
        (lambda t: dataclasses.replace(t, temperature=0.0), False, "temperature is 0, recorded wi"),
        (lambda t: dataclasses.replace(t, max_tokens=17), False, "max_tokens is 17, recorded with"),
        (lambda t: dataclasses.replace(t, num_epochs=3), False, "num_epochs is 3, recorded are 2"),
        (
            lambda t: dataclasses.replace(t, name="other"),
            False,
            "recorded are: terms (zero-shot), ",
        ),
        (lambda t: dataclasses.replace(t, examples=t.examples[:1]), True, "terms (2 examples)"),
        (
            lambda t: changed_question(t, messages=({"role": "user", "content": "Term 1"},)),
            False,
            "1 of 3 questions differ; first: task terms (zero-shot), question q/1: another prompt",
        ),
        (
            lambda t: changed_question(t, tools=()),
            False,
            "1 of 3 questions differ; first: task terms (zero-shot), question q/1: another prompt",
        ),
        (
            new_question,
            False,
            "1 of 4 questions differ; first: task terms (zero-shot), question q/",
        ),
        (
            lambda t: dataclasses.replace(
                t, examples=(question_and_answer("Term 9?", "Skin", id="y"), t.examples[1])
            ),
            True,
            "3 of 3 questions differ; first: task terms (2 examples), question q/0: another prompt",
        ),
    ],
)
def test_a_difference_is_refused_and_named(
    file: Path, task: EvaluationTask, change: Change, with_examples: bool, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_matches(open_recording(file), [(change(task), with_examples)])
    assert told in caught.value.what
    assert caught.value.where == str(file)
    assert "--record FILE" in (caught.value.remedy or "")


def test_with_prompts_the_difference_itself_is_named(tmp_path: Path) -> None:
    task = build_task()
    recording = open_recording(record(tmp_path / "r.jsonl", task, with_prompts=True))
    other = changed_question(task, messages=({"role": "user", "content": "Term one?"},))
    with pytest.raises(UserError, match=r"only recorded: 'Term 1\?'"):
        check_matches(recording, [(other, False)])
    with pytest.raises(UserError, match="its text is the same: tools or images differ"):
        check_matches(recording, [(changed_question(task, tools=()), False)])
