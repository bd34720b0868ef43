import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich

from configs.errors import UserError
from data.conversation import Conversation, Message, question_and_answer
from evals.asking import ask
from evals.targets import Target
from evals.tasks import build_task
from tests.evals.conftest import chapter_rows, reply
from tests.evals.loopback_host import LoopbackHost, run_host

ROOT = Path(__file__).parents[2]


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
    question = question_and_answer("Diagnosis: term 3. Which?", "Respiratory", id="a")
    system = Message(role="system", content="Be brief.")
    rows = [
        question,
        Conversation(id="b", messages=(system, *question.messages[:1], question.messages[1])),
        question_and_answer("Diagnosis: term 20. Which?", "Circulatory", id="c"),
    ]
    target = Target("mine", host.base_url, "variant")
    task = build_task(rows, name="t", max_tokens=8)
    first, second, third = ask(target, task, log_dir=tmp_path, max_connections=2)
    assert (first.id, first.question) == ("a", "Diagnosis: term 3. Which?")
    assert (first.reference, first.answer) == ("Respiratory", " RESPIRATORY.\n")
    assert first.correct
    assert (first.prompt_tokens, first.completion_tokens) == (4, 1)
    assert first.seconds is not None
    assert 0 < first.seconds < 5
    assert second.question == "system: Be brief.\n\nuser: Diagnosis: term 3. Which?"
    assert (third.answer, third.correct) == ("Unknown", False)
    sent = next(body for body in host.requests if len(body["messages"]) == 2)
    assert sent == {
        "model": "variant",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Diagnosis: term 3. Which?"},
        ],
        "temperature": 0.0,
        "max_tokens": 8,
    }


def test_answers_keep_the_order_of_the_rows_whoever_is_first(tmp_path: Path) -> None:
    def slow_first(model: str, messages: list[dict[str, str]]) -> str:
        return messages[-1]["content"]

    rows = chapter_rows(0, 6)
    with run_host(LoopbackHost(reply=slow_first, delay_seconds=0.05)) as host:
        task = build_task(rows, name="t", max_tokens=8)
        target = Target("mine", host.base_url, "variant")
        answers = ask(target, task, log_dir=tmp_path, max_connections=3)
    assert [answer.id for answer in answers] == [row.id for row in rows]
    assert [answer.answer for answer in answers] == [row.messages[0]["content"] for row in rows]
    assert host.most_at_once == 3


def test_a_busy_host_is_asked_again_until_it_answers(tmp_path: Path) -> None:
    rows = chapter_rows(0, 12)
    with run_host(LoopbackHost(reply=reply, busy_every=4)) as host:
        task = build_task(rows, name="t", max_tokens=8)
        ask(Target("mine", host.base_url, "variant"), task, log_dir=tmp_path, max_connections=2)
    assert set(host.answered.values()) == {1}
    assert len(host.answered) == 12
    assert len(host.requests) == 15


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
    host.hang_after = None
    resumed = start_asking(host, tmp_path, num_questions=12)
    output, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, output
    assert output.split("\n")[:-1] == [*(f"{n}/12" for n in range(7, 13)), "correct 10"]
    assert len(host.answered) == 12
    assert set(host.answered.values()) == {1}
    # A third run finds everything answered.
    num_requests = len(host.requests)
    task = build_task(chapter_rows(0, 12), name="chapters", max_tokens=8)
    target = Target("variant", "http://127.0.0.1:9/v1", "variant")
    again = ask(target, task, log_dir=tmp_path / "logs", max_connections=1)
    assert sum(answer.correct for answer in again) == 10
    assert len(host.requests) == num_requests


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


def test_other_questions_or_another_artefact_are_asked_afresh(
    host: LoopbackHost, tmp_path: Path
) -> None:
    def run(target: Target, num_rows: int) -> int:
        before = len(host.requests)
        task = build_task(chapter_rows(0, num_rows), name="t", max_tokens=8)
        assert len(ask(target, task, log_dir=tmp_path, max_connections=4)) == num_rows
        return len(host.requests) - before

    first = Target("mine", host.base_url, "variant", revision="aaaa")
    assert run(first, 3) == 3
    assert run(first, 3) == 0
    assert run(first, 4) == 4
    assert run(Target("mine", host.base_url, "variant", revision="bbbb"), 4) == 4
    assert run(first, 3) == 0


def test_a_host_that_fails_is_named_and_the_answers_are_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    task = build_task(chapter_rows(0, 6), name="t", max_tokens=8)
    with run_host(LoopbackHost(reply=reply, gone_after=4)) as host:
        target = Target("the hosted model", host.base_url, "big", api_key="sk-secret")
        with pytest.raises(UserError) as caught:
            ask(target, task, log_dir=tmp_path, max_connections=1, max_retries=1)
        assert "the hosted model (model big) did not answer" in caught.value.what
        assert "the engine is gone" in caught.value.what
        assert caught.value.where == host.base_url
        assert "4 answers so far are kept" in (caught.value.remedy or "")
        # inspect's own account of it, with a traceback, reaches neither screen nor log.
        assert capfd.readouterr() == ("", "")
        assert [record for record in caplog.records if record.name == "root"] == []
        # Two requests for the fifth question: the first one and one retry.
        assert len(host.requests) == 6
        host.gone_after = None
        answers = ask(target, task, log_dir=tmp_path, max_connections=1, max_retries=1)
    assert len(answers) == 6
    assert set(host.answered.values()) == {1}


def test_a_prompt_beyond_the_context_is_an_error_and_no_answer(tmp_path: Path) -> None:
    examples = chapter_rows(50, 2)
    task = build_task(chapter_rows(0, 3), name="t", examples=examples, max_tokens=8)
    with run_host(LoopbackHost(reply=reply, max_words=10)) as host:
        target = Target("mine", host.base_url, "variant")
        with pytest.raises(UserError, match="does not fit the model's context: maximum context"):
            ask(target, task, log_dir=tmp_path, max_connections=2)
        host.max_words = None
        assert len(ask(target, task, log_dir=tmp_path, max_connections=2)) == 3


def test_an_address_without_a_host_is_named(tmp_path: Path) -> None:
    task = build_task(chapter_rows(0, 2), name="t", max_tokens=8)
    target = Target("mine", "http://127.0.0.1:9/v1", "variant")
    with pytest.raises(UserError, match="Connection error") as caught:
        ask(target, task, log_dir=tmp_path, max_connections=1, max_retries=0)
    assert caught.value.where == "http://127.0.0.1:9/v1"


def test_a_wrong_key_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    task = build_task(chapter_rows(0, 2), name="t", max_tokens=8)
    with run_host(LoopbackHost(reply=reply, key="sk-right")) as host:
        target = Target("mine", host.base_url, "variant", api_key="sk-wrong")
        with pytest.raises(UserError, match="invalid api key") as caught:
            ask(target, task, log_dir=tmp_path, max_connections=1)
        assert "sk-wrong" not in str(caught.value) + repr(target)
        right = Target("mine", host.base_url, "variant", api_key="sk-right")
        assert len(ask(right, task, log_dir=tmp_path, max_connections=1)) == 2


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
    task = build_task(chapter_rows(0, 2), name="t", max_tokens=8)
    target = Target("mine", host.base_url, "variant")
    ask(target, task, log_dir=tmp_path / "logs", max_connections=1)
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
from evals.tasks import build_task
from tests.evals.conftest import chapter_rows

for name in ("first", "second"):
    task = build_task(chapter_rows(0, 2), name="t", max_tokens=8)
    folder = Path(sys.argv[2]) / name
    ask(Target("mine", sys.argv[1], "variant"), task, log_dir=folder, max_connections=1)
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
