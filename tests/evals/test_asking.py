import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import rich
from inspect_ai.log import list_eval_logs, read_eval_log

from configs.errors import UserError
from data.conversation import Message
from evals.asking import ask
from evals.kept_answers import FILE_NAME
from evals.targets import Target
from evals.task import EvaluationTask, Question
from evals.tasks import build_inspect_task
from tests.evals.conftest import ask_one, chapter_task, reply
from tests.evals.loopback_host import LoopbackHost, run_host

ROOT = Path(__file__).parents[2]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def host() -> Iterator[LoopbackHost]:
    with run_host(LoopbackHost(reply=reply)) as host:
        yield host


def start_asking(host: LoopbackHost, folder: Path, *, num_questions: int) -> subprocess.Popen[str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    unset = ("XDG_", "INSPECT_", "PYTEST_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
    return subprocess.Popen(
        [
            *(sys.executable, "-B", "-m", "tests.evals.asking_process"),
            *(host.base_url, str(folder / "logs"), str(num_questions), str(folder / "notes")),
        ],
        cwd=ROOT,
        env=environment | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_answers_carry_what_was_asked_and_answered(host: LoopbackHost, tmp_path: Path) -> None:
    first_question = chapter_task(3, 1).questions[0]
    system = Message(role="system", content="Be brief.")
    questions = (
        first_question,
        replace(first_question, id="b", messages=(system, *first_question.messages)),
        chapter_task(20, 1).questions[0],
    )
    task = chapter_task(0, 0, questions=questions)
    first, second, third = ask_one(host, task, tmp_path)
    assert (first.id, first.epoch) == ("icd/3", 1)
    assert first.question == "Diagnosis: term 3. Which chapter?"
    assert (first.reference, first.text) == ("Respiratory", " RESPIRATORY.\n")
    assert (first.score, first.label, first.stop_reason) == (1.0, "respiratory", "stop")
    assert (first.prompt_tokens, first.completion_tokens) == (5, 1)
    assert first.seconds is not None
    assert 0 < first.seconds < 5
    assert second.question == "system: Be brief.\n\nuser: Diagnosis: term 3. Which chapter?"
    assert (third.text, third.score) == ("Unknown", 0.0)
    sent = next(body for body in host.requests if len(body["messages"]) == 2)
    assert sent == {
        "model": "variant",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Diagnosis: term 3. Which chapter?"},
        ],
        "temperature": 0.0,
        "max_tokens": 8,
    }


def test_calls_of_tools_are_answers(tmp_path: Path) -> None:
    def call_weather(question: str) -> dict[str, object]:
        function = {"name": "weather", "arguments": '{"unit": "C",  "city": "Köln"}'}
        call = {"id": "call_1", "type": "function", "function": function}
        return {"content": None, "tool_calls": [call]}

    question = Question(
        id="q",
        messages=(Message(role="user", content="How warm is Köln?"),),
        reference=Message(role="assistant", content="", tool_calls=[]),
        cluster="q",
        tools=(WEATHER,),
    )
    task = chapter_task(0, 0, questions=(question,), metric="tool_call")
    host = LoopbackHost(reply=reply, turn=call_weather, finish_reason=lambda question: "tool_calls")
    with run_host(host):
        (answer,) = ask_one(host, task, tmp_path)
        (again,) = ask_one(host, task, tmp_path)
    assert host.requests[0]["tools"] == [WEATHER]
    assert len(host.requests) == 1
    function = {"name": "weather", "arguments": '{"city":"Köln","unit":"C"}'}
    assert [call["function"] for call in answer.tool_calls] == [function]
    assert (answer.text, answer.stop_reason) == ("", "tool_calls")
    assert again == answer


def test_answers_keep_the_order_of_questions_and_epochs(tmp_path: Path) -> None:
    def echo(model: str, messages: list[dict[str, str]]) -> str:
        time.sleep(0.01 * (len(messages[-1]["content"]) % 3))
        return messages[-1]["content"]

    task = chapter_task(8, 4, num_epochs=2, temperature=0.7)
    with run_host(LoopbackHost(reply=echo, delay_seconds=0.02)) as host:
        answers = ask_one(host, task, tmp_path, at_once=3)
    ids = [question.id for question in task.questions]
    assert [(one.id, one.epoch) for one in answers] == [(id, e) for id in ids for e in (1, 2)]
    assert all(answer.text == answer.question for answer in answers)


def test_connections_are_full_and_never_more_over_all_tasks(tmp_path: Path) -> None:
    tasks = [chapter_task(10 * n, count, name=f"t{n}") for n, count in enumerate((9, 1, 5, 5))]
    seen = []
    with run_host(LoopbackHost(reply=reply, delay_seconds=0.3)) as host:
        answers = ask(
            Target("mine", host.base_url, "variant"),
            [build_inspect_task(task) for task in tasks],
            log_dir=tmp_path,
            max_connections=5,
            progress=lambda *counts: seen.append(counts),
        )
    assert {name: len(found) for name, found in answers.items()} == {
        "t0": 9,
        "t1": 1,
        "t2": 5,
        "t3": 5,
    }
    assert host.most_at_once == 5
    # Twenty questions in four rounds: a slot that is free is taken up by any task.
    rounds = [host.arrived[n] - host.arrived[n - 5] for n in range(5, 20)]
    assert max(rounds) < 0.6
    assert seen == [(n, 20) for n in range(21)]


def test_a_killed_run_asks_exactly_the_missing_questions(
    host: LoopbackHost, tmp_path: Path
) -> None:
    host.hang_after = 7
    asking = start_asking(host, tmp_path, num_questions=12)
    assert asking.stdout is not None
    seen = []
    for line in asking.stdout:
        seen.append(line.strip())
        if line.startswith("7/"):
            break
    # The eighth question hangs in the host now: nothing is half-answered when the kill comes.
    os.kill(asking.pid, signal.SIGKILL)
    asking.wait()
    asking.stdout.close()
    assert seen == [f"{n}/12" for n in range(8)]
    assert sum(host.answered.values()) == 7
    # As a kill in the middle of a write leaves it.
    with (tmp_path / "logs" / FILE_NAME).open("ab") as file:
        file.write(b'{"key": "00')
    host.hang_after = None
    resumed = start_asking(host, tmp_path, num_questions=12)
    output, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, output
    assert output.split("\n")[:-1] == [*(f"{n}/12" for n in range(13)), "correct 10"]
    # A third run finds everything answered, and nothing glued to the cut line.
    task = build_inspect_task(chapter_task(0, 12))
    target = Target("variant", host.base_url, "variant")
    again = ask(target, [task], log_dir=tmp_path / "logs", max_connections=1)
    assert sum(answer.score == 1 for answer in again["chapters"]) == 10
    assert len(host.answered) == 12
    assert set(host.answered.values()) == {1}


def test_more_questions_epochs_tasks_or_another_metric_ask_only_what_is_new(
    host: LoopbackHost, tmp_path: Path
) -> None:
    def num_asked(*tasks: EvaluationTask, at_once: int = 4, revision: str = "aaaa") -> int:
        before = len(host.requests)
        target = Target("mine", host.base_url, "variant", revision=revision)
        built = [build_inspect_task(task) for task in tasks]
        answers = ask(target, built, log_dir=tmp_path, max_connections=at_once)
        for task in tasks:
            expected = [
                (one.id, epoch) for one in task.questions for epoch in range(1, task.num_epochs + 1)
            ]
            assert [(one.id, one.epoch) for one in answers[task.name]] == expected
        assert len(list_eval_logs(str(tmp_path))) == len(tasks)
        return len(host.requests) - before

    warm = chapter_task(0, 3, temperature=0.5)
    assert num_asked(warm) == 3
    assert num_asked(warm) == 0
    assert num_asked(chapter_task(0, 8, temperature=0.5), at_once=2) == 5
    assert num_asked(chapter_task(0, 8, temperature=0.5, num_epochs=2)) == 8
    assert num_asked(warm, chapter_task(20, 2, name="more")) == 2
    assert num_asked(replace(warm, metric="exact_match")) == 0
    assert num_asked(replace(warm, name="renamed")) == 0
    assert num_asked(replace(warm, temperature=0.6)) == 3
    assert num_asked(replace(warm, max_tokens=9)) == 3
    assert num_asked(warm, revision="bbbb") == 3
    assert num_asked(warm) == 0
    system = Message(role="system", content="Be brief.")
    prompted = tuple(replace(one, messages=(system, *one.messages)) for one in warm.questions)
    assert num_asked(replace(warm, questions=prompted)) == 3


def test_the_metric_judges_kept_answers_anew(host: LoopbackHost, tmp_path: Path) -> None:
    task = chapter_task(0, 3)
    strict = ask_one(host, replace(task, metric="exact_match"), tmp_path)
    kind = ask_one(host, task, tmp_path)
    assert [one.score for one in strict] == [0, 0, 0]
    assert [one.score for one in kind] == [0, 1, 1]
    # Tokens and seconds are those of the request, not of looking the answer up.
    assert [(one.prompt_tokens, one.completion_tokens, one.seconds) for one in kind] == [
        (one.prompt_tokens, one.completion_tokens, one.seconds) for one in strict
    ]
    assert len(host.requests) == 3


def test_without_a_revision_another_address_is_another_model(tmp_path: Path) -> None:
    task = build_inspect_task(chapter_task(0, 2))
    for _ in range(2):
        with run_host(LoopbackHost(reply=reply)) as host:
            target = Target("mine", host.base_url, "variant")
            ask(target, [task], log_dir=tmp_path, max_connections=2)
        assert len(host.requests) == 2


def test_a_damaged_line_of_kept_answers_is_named(host: LoopbackHost, tmp_path: Path) -> None:
    ask_one(host, chapter_task(0, 3), tmp_path)
    file = tmp_path / FILE_NAME
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:50]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as caught:
        ask_one(host, chapter_task(0, 3), tmp_path)
    assert caught.value.where == f"{file}, line 2"


def test_nothing_is_written_or_sent_elsewhere(host: LoopbackHost, tmp_path: Path) -> None:
    asking = start_asking(host, tmp_path, num_questions=3)
    output, _ = asking.communicate(timeout=60)
    assert asking.returncode == 0, output
    # What is printed is the progress alone, without a display or a word of inspect's.
    assert output == "0/3\n1/3\n2/3\n3/3\ncorrect 2\n"
    notes = (tmp_path / "notes").read_text().splitlines()
    sockets = {note for note in notes if note.startswith("socket")}
    port = int(host.base_url.split(":")[2].split("/")[0])
    assert sockets == {f"socket ('127.0.0.1', {port})"}
    files = {note.removeprefix("file ") for note in notes if note.startswith("file")}
    logs = str(tmp_path / "logs")
    assert any(name.startswith(f"{logs}/") for name in files), "the watch saw nothing"
    # inspect builds a log in a file of the system's temporary folder that has no name for long.
    strangers = {
        name
        for name in files
        if not name.startswith(logs) and not name.isdigit() and Path(name).exists()
    }
    assert strangers <= {tempfile.gettempdir(), os.devnull}
    assert list((tmp_path / "home").rglob("*")) == []
    kept = [file for file in (tmp_path / "logs").rglob("*") if file.is_file()]
    assert not any(b"sk-secret" in file.read_bytes() for file in kept)


def test_the_log_shows_what_was_asked_and_by_whom(host: LoopbackHost, tmp_path: Path) -> None:
    answers = ask_one(host, chapter_task(0, 3), tmp_path)
    (info,) = list_eval_logs(str(tmp_path))
    log = read_eval_log(info)
    assert log.status == "success"
    assert (log.eval.task, log.eval.model) == ("chapters", "tunery/variant")
    assert log.eval.metadata == {"target": "mine", "revision": "aaaa"}
    assert sorted(one.output.completion for one in log.samples or []) == sorted(
        one.text for one in answers
    )


def test_nothing_to_ask_is_nothing_done(tmp_path: Path) -> None:
    target = Target("mine", "http://127.0.0.1:9/v1", "variant")
    assert ask(target, [], log_dir=tmp_path / "logs", max_connections=1) == {}


def test_the_process_is_left_as_it_was(
    host: LoopbackHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INSPECT_EVAL_MODEL", "openai/other")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("INSPECT_LOG_DIR=elsewhere\nFROM_DOTENV=1\n")
    root = logging.getLogger()
    before = dict(os.environ), list(root.handlers), root.level, list(root.filters)
    ask_one(host, chapter_task(0, 2), tmp_path / "logs", at_once=1)
    assert (dict(os.environ), list(root.handlers), root.level, list(root.filters)) == before
    assert capsys.readouterr().out == ""
    rich.print("rich still prints")
    assert capsys.readouterr().out == "rich still prints\n"
    assert not (tmp_path / "elsewhere").exists()


ASK_TWICE = """
import logging.config
import sys
from pathlib import Path
from shutil import rmtree
from evals.asking import ask
from evals.targets import Target
from evals.tasks import build_inspect_task
from tests.evals.conftest import chapter_task

for name in ("first", "second"):
    task = build_inspect_task(chapter_task(0, 2))
    folder = Path(sys.argv[2]) / name
    ask(Target("mine", sys.argv[1], "variant"), [task], log_dir=folder, max_connections=1)
    rmtree(folder)
    # As every uvicorn server does that starts in the process: it closes all log files.
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
"""


def test_asking_goes_on_after_the_first_log_folder_is_gone(
    host: LoopbackHost, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", ASK_TWICE, host.base_url, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(host.requests) == 4
