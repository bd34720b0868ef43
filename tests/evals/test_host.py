import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from configs.errors import UserError
from data.conversation import Message
from evals.asking import ask
from evals.targets import Target
from evals.tasks import build_inspect_task
from tests.evals.conftest import ask_one, chapter_task, reply
from tests.evals.loopback_host import LOST, Failure, LoopbackHost, run_host


def test_a_busy_host_is_asked_again_until_it_answers(tmp_path: Path) -> None:
    with run_host(LoopbackHost(reply=reply, busy_every=4)) as host:
        ask_one(host, chapter_task(0, 12), tmp_path, at_once=2)
    assert set(host.answered.values()) == {1}
    assert len(host.answered) == 12
    assert len(host.requests) == 15


@pytest.mark.parametrize("status", [408, 429, 500, 503, LOST])
def test_what_may_pass_is_asked_again(status: int, tmp_path: Path) -> None:
    headers = {"Retry-After": "0.2"} if status else None
    with run_host(LoopbackHost(reply=reply, failures=[Failure(status, "x", headers)])) as host:
        ask_one(host, chapter_task(1, 1), tmp_path)
    assert len(host.requests) == 2
    assert 0.2 <= host.arrived[1] - host.arrived[0] < 1.5


def test_a_date_in_retry_after_is_waited_for(tmp_path: Path) -> None:
    until = time.time() + 2.5
    failure = Failure(429, "later", {"Retry-After": formatdate(until, usegmt=True)})
    with run_host(LoopbackHost(reply=reply, failures=[failure])) as host:
        ask_one(host, chapter_task(1, 1), tmp_path)
    assert len(host.requests) == 2
    # A date has whole seconds.
    assert time.time() >= int(until)
    assert host.arrived[1] - host.arrived[0] > 1


def test_a_host_that_asks_for_too_long_a_wait_is_given_up(tmp_path: Path) -> None:
    failure = Failure(429, "quota of the day", {"Retry-After": "40000"})
    with run_host(LoopbackHost(reply=reply, failures=[failure])) as host:
        with pytest.raises(
            UserError, match=r"429: quota of the day \(the host asks to wait 40000 s\)"
        ):
            ask_one(host, chapter_task(0, 3), tmp_path, at_once=1)
        assert len(host.requests) == 1
        assert len(ask_one(host, chapter_task(0, 3), tmp_path)) == 3


def test_the_hosts_limit_is_kept_also_by_what_is_sent_again(tmp_path: Path) -> None:
    with run_host(LoopbackHost(reply=reply, failures=[Failure(500), Failure(500)])) as host:
        target = Target("mine", host.base_url, "variant", requests_per_minute=300)
        task = build_inspect_task(chapter_task(0, 6))
        started = time.monotonic()
        ask(target, [task], log_dir=tmp_path, max_connections=6)
    assert len(host.requests) == 8
    # 300 a minute are 200 ms apart. However late a busy machine sends, none goes before its turn.
    waits = [arrived - started for arrived in host.arrived]
    assert all(wait >= 0.2 * turn for turn, wait in enumerate(waits))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_host_that_answers_nobody_is_asked_no_more(status: int, tmp_path: Path) -> None:
    refused = Failure(status, "no such luck")
    with run_host(LoopbackHost(reply=reply, refuse=lambda question: refused)) as host:
        with pytest.raises(UserError, match=f"did not answer: {status}: no such luck"):
            ask_one(host, chapter_task(0, 20), tmp_path, at_once=2)
        assert len(host.requests) <= 2


def test_a_refused_question_does_not_lose_the_others(tmp_path: Path) -> None:
    def refuse(question: str) -> Failure | None:
        return Failure(400, "unsupported character") if "term 3." in question else None

    with run_host(LoopbackHost(reply=reply, refuse=refuse)) as host:
        with pytest.raises(UserError) as caught:
            ask_one(host, chapter_task(0, 12), tmp_path, at_once=2)
        assert "1 question (first: icd/3): 400: unsupported character" in caught.value.what
        assert "the 11 other answers are kept" in (caught.value.remedy or "")
        assert len(host.answered) == 11
        host.refuse = lambda question: None
        assert len(ask_one(host, chapter_task(0, 12), tmp_path)) == 12
    assert set(host.answered.values()) == {1}


def test_a_host_that_refuses_everything_is_asked_five_times(tmp_path: Path) -> None:
    refused = Failure(400, "unknown field max_tokens")
    with run_host(LoopbackHost(reply=reply, refuse=lambda question: refused)) as host:
        with pytest.raises(UserError, match=r"unknown field max_tokens \(5 questions in a row\)"):
            ask_one(host, chapter_task(0, 20), tmp_path, at_once=1)
        assert len(host.requests) == 5


def test_a_withheld_answer_counts_as_wrong(tmp_path: Path) -> None:
    def refuse(question: str) -> Failure | None:
        # Azure's form: the filter saw the prompt.
        withheld = Failure(400, "Respiratory", code="content_filter")
        return withheld if "term 3." in question else None

    host = LoopbackHost(
        reply=reply,
        refuse=refuse,
        finish_reason=lambda question: "content_filter" if "term 1." in question else "stop",
    )
    with run_host(host):
        answers = ask_one(host, chapter_task(1, 3), tmp_path)
        num_requests = len(host.requests)
        assert ask_one(host, chapter_task(1, 3), tmp_path) == answers
    assert [one.stop_reason for one in answers] == ["content_filter", "stop", "content_filter"]
    # The first and the last hold the right word, but nobody was given it.
    assert [one.score for one in answers] == [0.0, 1.0, 0.0]
    assert len(host.requests) == num_requests


def test_a_host_that_fails_is_named_and_the_answers_are_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    task = build_inspect_task(chapter_task(0, 6))
    with run_host(LoopbackHost(reply=reply, gone_after=4)) as host:
        target = Target("the hosted model", host.base_url, "big", api_key="sk-secret")
        with pytest.raises(UserError) as caught:
            ask(target, [task], log_dir=tmp_path, max_connections=1, max_retries=1)
        assert "the hosted model (model big) did not answer: 500: the engine is gone" in (
            caught.value.what
        )
        assert caught.value.where == host.base_url
        assert "4 answers so far are kept" in (caught.value.remedy or "")
        # inspect's own account of it, with a traceback, reaches neither screen nor log.
        assert capfd.readouterr() == ("", "")
        assert [record for record in caplog.records if record.name == "root"] == []
        # Two requests for the fifth question: the first one and one retry.
        assert len(host.requests) == 6
        host.gone_after = None
        answers = ask(target, [task], log_dir=tmp_path, max_connections=1, max_retries=1)
    assert len(answers["chapters"]) == 6
    assert set(host.answered.values()) == {1}


def test_a_prompt_beyond_the_context_is_an_error_and_no_answer(tmp_path: Path) -> None:
    long = Message(role="user", content="Diagnosis: term 1. " + "Which? " * 20)
    short = chapter_task(0, 3)
    questions = (*short.questions, replace(short.questions[1], id="long", messages=(long,)))
    task = chapter_task(0, 0, questions=questions)
    with run_host(LoopbackHost(reply=reply, max_words=10)) as host:
        with pytest.raises(UserError, match="does not fit the model's context: maximum context"):
            ask_one(host, task, tmp_path)
        assert len(host.requests) == 4
        host.max_words = None
        assert len(ask_one(host, task, tmp_path)) == 4
        assert len(host.requests) == 5


def test_an_address_without_a_host_is_named(tmp_path: Path) -> None:
    target = Target("mine", "http://127.0.0.1:9/v1", "variant")
    task = build_inspect_task(chapter_task(0, 2))
    with pytest.raises(UserError, match="Connection error") as caught:
        ask(target, [task], log_dir=tmp_path, max_connections=1, max_retries=0)
    assert caught.value.where == "http://127.0.0.1:9/v1"


def test_a_wrong_key_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    task = build_inspect_task(chapter_task(0, 2))
    with run_host(LoopbackHost(reply=reply, key="sk-right")) as host:
        target = Target("mine", host.base_url, "variant", api_key="sk-wrong")
        with pytest.raises(UserError, match="401: invalid api key") as caught:
            ask(target, [task], log_dir=tmp_path, max_connections=1)
        assert "sk-wrong" not in str(caught.value) + repr(target)
        assert len(host.requests) == 1
        right = Target("mine", host.base_url, "variant", api_key="sk-right")
        assert len(ask(right, [task], log_dir=tmp_path, max_connections=1)["chapters"]) == 2


def test_whoever_waits_for_a_turn_is_told_that_the_host_is_gone(tmp_path: Path) -> None:
    gone = Failure(401, "key expired")
    with run_host(LoopbackHost(reply=reply, refuse=lambda question: gone)) as host:
        target = Target("mine", host.base_url, "variant", requests_per_minute=1)
        started = time.monotonic()
        with pytest.raises(UserError, match="401: key expired"):
            task = build_inspect_task(chapter_task(0, 4))
            ask(target, [task], log_dir=tmp_path, max_connections=4)
    assert time.monotonic() - started < 30
    assert len(host.requests) == 1


@pytest.fixture
def heeded_sigint() -> Iterator[None]:
    """Ctrl-C as in a terminal: programs started in the background inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_sigint")
def test_an_interrupted_run_ends_as_interrupted_and_goes_on(tmp_path: Path) -> None:
    def interrupt(num_done: int, num_all: int) -> None:
        if num_done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    task = build_inspect_task(chapter_task(0, 8))
    with run_host(LoopbackHost(reply=reply, delay_seconds=0.05)) as host:
        target = Target("mine", host.base_url, "variant")
        with pytest.raises(KeyboardInterrupt):
            ask(target, [task], log_dir=tmp_path, max_connections=1, progress=interrupt)
        assert 3 <= len(host.answered) < 8
        assert len(ask(target, [task], log_dir=tmp_path, max_connections=1)["chapters"]) == 8
    # The one in flight when the signal came has to be asked again.
    assert sum(host.answered.values()) <= 9
