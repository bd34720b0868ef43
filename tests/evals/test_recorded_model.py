"""Recorded answers through inspect itself: the same tasks, scorers and logs as for a host."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai import eval
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import ModelUsage

from configs.errors import UserError
from data.conversation import Message
from evals.asking import ask
from evals.containment import contained
from evals.recorded_model import recorded_model
from evals.recording import open_recording, write_recording
from evals.targets import Target
from evals.task import EvaluationTask
from evals.tasks import build_inspect_task, log_name
from tests.evals.recorded_rows import HOST, answers_to, build_task, record

ROOT = Path(__file__).parents[2]


def run(file: Path, task: EvaluationTask, folder: Path, *, with_examples: bool = False) -> EvalLog:
    with contained(folder):
        [log] = eval(
            build_inspect_task(task, with_examples=with_examples),
            model=recorded_model(file, name="big-2503"),
            log_dir=str(folder),
            display="log",
            log_level="error",
            ctl_server=False,
        )
    return log


def by_key(log: EvalLog) -> dict[tuple[str, int], EvalSample]:
    assert log.status == "success", log.error
    return {(str(sample.id), sample.epoch): sample for sample in log.samples or []}


@pytest.mark.parametrize("with_examples", [False, True])
def test_answers_come_out_as_they_were_recorded(tmp_path: Path, with_examples: bool) -> None:
    task = build_task(temperature=0.7, num_epochs=2)
    file = record(tmp_path / "r.jsonl", task)
    samples = by_key(run(file, task, tmp_path, with_examples=with_examples))
    [recorded] = answers_to([(task, with_examples)]).values()
    assert set(samples) == {(one.id, one.epoch) for one in recorded}
    for one in recorded:
        output = samples[one.id, one.epoch].output
        assert output.stop_reason == one.stop_reason
        assert output.time == (one.seconds or 0.0)
        calls = output.message.tool_calls or []
        assert [call.function for call in calls] == ["look_up"] * len(one.tool_calls)
        assert [call.arguments for call in calls] == [{"term": "skin"}] * len(one.tool_calls)
        if one.prompt_tokens is None:
            assert output.usage is None
        else:
            assert output.usage == ModelUsage(input_tokens=12, output_tokens=3, total_tokens=15)


def test_texts_survive_to_the_letter(tmp_path: Path) -> None:
    task = build_task(1)
    said = "  Skin.\n\tü – “x” \u2028 <think>no</think> 1 < 2 🙂 "
    [plain] = answers_to([(task, False)])["terms"]
    write_recording(
        tmp_path / "r.jsonl",
        target=HOST,
        tasks=[(task, False)],
        answers={"terms": [dataclasses.replace(plain, text=said)]},
    )
    [sample] = by_key(run(tmp_path / "r.jsonl", task, tmp_path)).values()
    assert sample.output.completion == said


def test_the_scorer_judges_recorded_answers(tmp_path: Path) -> None:
    task = build_task(3)
    answers = answers_to([(task, False)])["terms"]
    answers[0] = dataclasses.replace(answers[0], text="skin.")
    file = tmp_path / "r.jsonl"
    write_recording(file, target=HOST, tasks=[(task, False)], answers={"terms": answers})
    samples = by_key(run(file, task, tmp_path))
    scores = {
        key: score.value for key, one in samples.items() for score in (one.scores or {}).values()
    }
    assert scores == {("q/0", 1): 1.0, ("q/1", 1): 0.0, ("q/2", 1): 0.0}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_another_prompt_gets_no_recorded_answer(tmp_path: Path, number: int) -> None:
    task = build_task()
    file = record(tmp_path / "r.jsonl", task)
    questions = list(task.questions)
    asked: Message = {"role": "user", "content": "Term nine?"}
    questions[number] = dataclasses.replace(questions[number], messages=(asked,))
    log = run(file, dataclasses.replace(task, questions=tuple(questions)), tmp_path)
    assert log.status == "error"
    assert log.error is not None
    assert f"question q/{number}, epoch 1: the recording answers another prompt" in (
        log.error.message
    )


def test_a_question_that_was_not_recorded_is_an_error(tmp_path: Path) -> None:
    task = build_task(1)
    file = record(tmp_path / "r.jsonl", task)
    log = run(file, dataclasses.replace(task, num_epochs=2, temperature=0.5), tmp_path)
    assert log.error is not None
    assert "question q/0, epoch 2: the recording has no answer to it" in log.error.message


def test_a_damaged_recording_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file = record(tmp_path / "r.jsonl", build_task())
    file.write_text(file.read_text().replace("big-2503", "small-2503"))
    with pytest.raises(UserError, match="changed since it was written"):
        recorded_model(file, name="big-2503")


def test_asking_a_recording_gives_the_answers_that_were_recorded(tmp_path: Path) -> None:
    task = build_task(temperature=0.7, num_epochs=2)
    asked = [(task, False), (task, True)]
    file = record(tmp_path / "r.jsonl", task)
    revision = open_recording(file).sha256
    target = Target("big", "http://host.example", "big-2503", revision=revision, recording=file)
    tasks = [build_inspect_task(one, with_examples=with_examples) for one, with_examples in asked]
    found = ask(target, tasks, log_dir=tmp_path / "logs", max_connections=2)
    recorded = answers_to(asked)
    assert list(found) == list(recorded)
    for name, answers in found.items():
        for one, given in zip(answers, recorded[name], strict=True):
            # inspect's log has no lone surrogates and makes up other ids for calls.
            assert one.text == given.text.replace("\ud800", one.text[-1:] or "")
            calls = [json.loads(call["function"]["arguments"]) for call in one.tool_calls]
            assert calls == [{"term": "skin"}] * len(given.tool_calls)
            for field in ("id", "epoch", "stop_reason", "prompt_tokens", "completion_tokens"):
                assert getattr(one, field) == getattr(given, field)
            assert (one.seconds or None) == given.seconds


OFFLINE = """
import socket, sys
from pathlib import Path

def guard(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        raise RuntimeError(f"the network was used: {event} {args}")

sys.addaudithook(guard)
from tests.evals.recorded_rows import build_task
from tests.evals.test_recorded_model import by_key, run

folder = Path(sys.argv[1])
samples = by_key(run(folder / "r.jsonl", build_task(), folder))
print(len(samples), max(sample.output.time for sample in samples.values()))
try:
    socket.create_connection(("127.0.0.1", 9))
except RuntimeError:
    print("guarded")
"""


def test_neither_network_nor_key_is_needed(tmp_path: Path) -> None:
    record(tmp_path / "r.jsonl", build_task())
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3 2.25\nguarded\n"), done.stderr


def test_the_path_of_the_log_is_that_of_the_prompt(tmp_path: Path) -> None:
    task = build_task(1)
    log = run(record(tmp_path / "r.jsonl", task), task, tmp_path, with_examples=True)
    assert log.eval.task == log_name(task, with_examples=True)
    assert log.eval.model == "recorded/big-2503"
