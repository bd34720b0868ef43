import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from email.utils import formatdate

import pytest

from configs.errors import UserError
from serve.engine import (
    ChoiceEnd,
    Completion,
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Event,
    Overloaded,
    RequestRefused,
    TextDelta,
    Usage,
)
from serve.engines.upstream import UpstreamEngine, find_proxy, guess_dialect
from tests.serve.engines.scripted_host import Conversation, Host, Script, scripted_host

KEY = "sk-very-secret"
ASKED = Completion(model="theirs", messages=({"role": "user", "content": "hi"},))
A = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
COUNTS = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
ANSWER = [
    TextDelta(text="a"),
    ChoiceEnd(reason="stop"),
    Usage(prompt_tokens=5, completion_tokens=1),
]


@asynccontextmanager
async def asking(
    script: Script, *, silence_s: float = 5.0, models_status: int = 200
) -> AsyncIterator[tuple[UpstreamEngine, Host]]:
    """An engine in front of a host that follows the script."""
    async with scripted_host(script, models_status=models_status) as host:
        engine = UpstreamEngine(
            base_url=host.url, model="theirs", api_key=KEY, context_length=8192, silence_s=silence_s
        )
        try:
            await engine.start()
            yield engine, host
        finally:
            await engine.close()


async def events(engine: UpstreamEngine, asked: Completion = ASKED) -> list[Event]:
    return [event async for event in engine.complete(asked)]


async def answer(talk: Conversation) -> None:
    await talk.stream(A, END, COUNTS)


def answers(status: int, body: object, **headers: str) -> Script:
    async def script(talk: Conversation) -> None:
        await talk.answer(status, body, **headers)

    return script


def raised(script: Script, *, silence_s: float = 5.0) -> Exception:
    """What a request to such a host ends with."""

    async def ask() -> Exception:
        async with asking(script, silence_s=silence_s) as (engine, _), asyncio.timeout(10):
            try:
                await events(engine)
            except (EngineError, RequestRefused) as error:
                return error
            raise AssertionError("it was answered")

    return asyncio.run(ask())


def test_the_request_that_hosts_get() -> None:
    async def check() -> None:
        async with asking(answer) as (engine, host):
            assert await events(engine) == ANSWER
            assert host.asked[0].line == "POST /v1/chat/completions HTTP/1.1"
            assert host.asked[0].headers["authorization"] == f"Bearer {KEY}"
            assert host.asked[0].headers["content-type"] == "application/json"
            assert host.asked[0].body == {
                "model": "theirs",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0.7,
            }

    asyncio.run(check())


def test_a_connection_is_used_again() -> None:
    async def check() -> None:
        async with asking(answer) as (engine, host):
            for _ in range(5):
                await events(engine)
            assert host.num_connections == 1

    asyncio.run(check())


def test_a_connection_is_used_again_where_its_answer_ends_late() -> None:
    async def late(talk: Conversation) -> None:
        await talk.stream(A, END, COUNTS, end=False)
        await talk.send(b"e\r\ndata: [DONE]\n\n\r\n")
        await asyncio.sleep(0.02)
        await talk.send(b"0\r\n\r\n")

    async def check() -> None:
        async with asking(late) as (engine, host):
            for _ in range(3):
                assert await events(engine) == ANSWER
            assert host.num_connections == 1

    asyncio.run(check())


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async def slowly(talk: Conversation) -> None:
        await talk.stream(A, end=False)
        await asyncio.sleep(0.2)
        await talk.event(END)
        await talk.send(b"0\r\n\r\n")

    async def check() -> None:
        async with asking(slowly) as (engine, host):
            started = time.monotonic()
            await asyncio.gather(*(events(engine) for _ in range(20)))
            assert time.monotonic() - started < 2
            assert host.num_connections == 20

    asyncio.run(check())


def test_a_connection_that_was_closed_while_idle_is_replaced_once() -> None:
    async def once(talk: Conversation) -> None:
        if talk.num_asked == 1:
            await answer(talk)
        else:
            talk.writer.transport.abort()

    async def check() -> None:
        async with asking(once) as (engine, host):
            assert await events(engine) == ANSWER
            assert await events(engine) == ANSWER
            assert host.num_connections == 2

    asyncio.run(check())


def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    async def break_off(talk: Conversation) -> None:
        talk.writer.transport.abort()

    async def check() -> None:
        async with scripted_host(break_off, models_connection="close") as host:
            engine = UpstreamEngine(base_url=host.url, model="theirs")
            await engine.start()
            with pytest.raises(EngineUnavailable):
                await events(engine)
            assert len(host.asked) == 1
            await engine.close()

    asyncio.run(check())


def test_nothing_is_asked_again_after_the_first_word() -> None:
    async def half(talk: Conversation) -> None:
        await talk.stream(A, end=False)
        talk.writer.transport.abort()

    async def check() -> None:
        async with asking(half) as (engine, host):
            told = []
            with pytest.raises(EngineUnavailable, match="broke the answer off"):
                async for event in engine.complete(ASKED):
                    told.append(event)
            assert told == [TextDelta(text="a")]
            assert len(host.asked) == 1

    asyncio.run(check())


def test_an_answer_that_ends_without_a_reason_is_broken_off() -> None:
    async def cut(talk: Conversation) -> None:
        await talk.stream(A)

    assert isinstance(raised(cut), EngineUnavailable)


def test_silence_has_an_end() -> None:
    async def say_nothing(talk: Conversation) -> None:
        await talk.stream(A, end=False)
        await asyncio.sleep(3)

    started = time.monotonic()
    error = raised(say_nothing, silence_s=0.3)
    assert isinstance(error, EngineUnavailable)
    assert "said nothing for 0.3 seconds" in str(error)
    assert time.monotonic() - started < 2


def test_comments_are_signs_of_life() -> None:
    async def slowly(talk: Conversation) -> None:
        await talk.stream(A, end=False)
        for _ in range(6):
            await asyncio.sleep(0.1)
            await talk.send(b"7\r\n: wait\n\r\n")
        await talk.event(END)
        await talk.send(b"0\r\n\r\n")

    async def check() -> None:
        async with asking(slowly, silence_s=0.4) as (engine, _):
            assert await events(engine) == ANSWER[:2]

    asyncio.run(check())


def test_going_away_closes_the_connection_to_the_host() -> None:
    gone = asyncio.Event()

    async def endless(talk: Conversation) -> None:
        await talk.stream(A, end=False)
        with suppress(ConnectionError):
            while True:
                await talk.event(A)
                await asyncio.sleep(0.01)
        gone.set()

    async def check() -> None:
        async with asking(endless) as (engine, _):
            async with aclosing(engine.complete(ASKED)) as answer:
                await anext(answer)
            async with asyncio.timeout(0.5):
                await gone.wait()

    asyncio.run(check())


def test_going_away_before_the_first_word_closes_the_connection_as_well() -> None:
    gone = asyncio.Event()

    async def think(talk: Conversation) -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.01)
                if talk.writer.is_closing() or talk.writer.transport.is_closing():
                    break
                await talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        gone.set()

    async def check() -> None:
        async with asking(think) as (engine, _):
            waiting = asyncio.ensure_future(events(engine))
            await asyncio.sleep(0.1)
            waiting.cancel()
            async with asyncio.timeout(0.5):
                await gone.wait()

    asyncio.run(check())


@pytest.mark.parametrize("begun", [True, False])
def test_closing_ends_what_runs(begun: bool) -> None:
    async def stay(talk: Conversation) -> None:
        if begun:
            await talk.stream(A, end=False)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3)

    async def check() -> None:
        async with asking(stay) as (engine, _):
            running = asyncio.ensure_future(events(engine))
            await asyncio.sleep(0.1)
            await engine.close()
            async with asyncio.timeout(1):
                with pytest.raises(EngineUnavailable, match="closed"):
                    await running
            assert not engine.ready
            with pytest.raises(EngineUnavailable):
                await events(engine)

    asyncio.run(check())


def test_a_host_that_does_not_stream() -> None:
    message = {"role": "assistant", "content": "a"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}

    async def check() -> None:
        whole = answers(200, {"choices": [choice], "usage": COUNTS["usage"]})
        async with asking(whole) as (engine, host):
            assert await events(engine) == ANSWER
            assert await events(engine) == ANSWER
            assert host.num_connections == 1

    asyncio.run(check())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "no", "param": "top_p"}}, RequestRefused),
        (422, {"detail": [{"loc": ["body", "top_p"], "msg": "no"}]}, RequestRefused),
        (404, {"error": {"message": "no", "param": "top_p"}}, RequestRefused),
        (413, {"message": "no", "param": "top_p"}, RequestRefused),
        (
            400,
            {"error": {"message": "request (9000 tokens) exceeds the available context size (8192 "
                       "tokens), try increasing it"}},
            ContextExceeded,
        ),
        (500, {"error": {"message": "no"}}, EngineUnavailable),
        (502, "<html>Bad gateway</html>", EngineUnavailable),
        (503, "", EngineUnavailable),
        (307, "", EngineUnavailable),
        (200, "<html>Welcome</html>", EngineError),
        (200, "[]", EngineError),
    ],
)  # fmt: skip
def test_errors_of_hosts(status: int, body: object, kind: type[Exception]) -> None:
    error = raised(answers(status, body, Location="http://127.0.0.1:9/v1"))
    assert type(error).__mro__.count(kind) == 1, repr(error)
    assert "html" not in str(error)
    if kind is RequestRefused:
        assert isinstance(error, RequestRefused)
        assert str(error) == "no"
        assert error.field == "top_p"


def test_an_overloaded_host_says_when_to_come_back() -> None:
    body = {"error": {"message": "Rate limit reached for organization org-123"}}
    for value, seconds in (("7", 7), (formatdate(time.time() + 30, usegmt=True), 30), ("?", 5)):
        error = raised(answers(429, body, Retry_After=value))
        assert isinstance(error, Overloaded)
        assert error.retry_after_s == pytest.approx(seconds, abs=1.5)
        assert "org-123" not in str(error)


@pytest.mark.parametrize("status", [401, 403, 402])
def test_a_key_that_is_refused_is_our_fault_and_stays_secret(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = raised(answers(status, {"error": {"message": f"Incorrect API key: {KEY}"}}))
    assert type(error) is EngineError
    assert "key" in str(error)
    assert KEY not in str(error) + caplog.text


@pytest.mark.parametrize("status", [400, 500])
def test_a_host_that_repeats_the_key_does_not_tell_it(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = raised(answers(status, {"error": {"message": f"we got {KEY}"}}))
    assert "we got [key]" in str(error)
    assert KEY not in repr(error) + caplog.text


def test_a_key_that_the_host_does_not_know_is_told_at_the_start() -> None:
    async def check() -> None:
        with pytest.raises(UserError, match="refuses the key") as caught:
            async with asking(answer, models_status=401):
                pass
        assert KEY not in str(caught.value)

    asyncio.run(check())


@pytest.mark.parametrize("status", [404, 405, 500])
def test_hosts_without_a_list_of_models_are_asked_all_the_same(status: int) -> None:
    async def check() -> None:
        async with asking(answer, models_status=status) as (engine, _):
            assert engine.ready
            assert await events(engine) == ANSWER

    asyncio.run(check())


def unreachable() -> UpstreamEngine:
    return UpstreamEngine(base_url="http://127.0.0.1:9/v1", model="theirs", api_key=KEY)


def test_a_host_out_of_reach_is_not_ready_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        engine = unreachable()
        assert not engine.ready
        await engine.start()
        assert engine.ready, "nobody has been refused yet"
        with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
            await events(engine)
        assert not engine.ready
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + caught.value.retry_after_s + 0.1)
        assert engine.ready, "the next request may try"
        await engine.close()

    asyncio.run(check())


def test_one_answer_makes_a_host_ready_again() -> None:
    async def moody(talk: Conversation) -> None:
        if talk.asked.body["temperature"] == 0:
            await talk.answer(503, "")
        else:
            await answer(talk)

    async def check() -> None:
        async with asking(moody) as (engine, _):
            with pytest.raises(EngineUnavailable):
                await events(engine, replace(ASKED, temperature=0))
            assert not engine.ready
            await events(engine)
            assert engine.ready

    asyncio.run(check())


def test_a_host_that_refuses_or_is_full_stays_ready() -> None:
    async def check(script: Script) -> None:
        async with asking(script) as (engine, _):
            with pytest.raises((RequestRefused, Overloaded)):
                await events(engine)
            assert engine.ready

    for status in (400, 429):
        asyncio.run(check(answers(status, {"error": {"message": "no"}})))


def test_what_it_says_of_itself() -> None:
    engine = UpstreamEngine(
        base_url="http://127.0.0.1:9/v1", model="theirs", max_requests=3, context_length=8192
    )
    (model,) = engine.models
    assert (model.name, model.context_length, engine.capacity) == ("theirs", 8192, 3)


def test_mistral_is_known_by_its_name() -> None:
    assert guess_dialect("https://api.mistral.ai/v1") == "mistral"
    assert guess_dialect("https://notmistral.ai/v1") == "openai"
    assert guess_dialect("https://hub.oxen.ai/api/ai") == "openai"


def test_the_environments_proxy_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert find_proxy("https://api.mistral.ai/v1") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    assert find_proxy("https://api.mistral.ai/v1") == "http://proxy:3128"
    assert find_proxy("http://api.mistral.ai/v1") is None
    assert find_proxy("https://127.0.0.1:8000/v1") is None
