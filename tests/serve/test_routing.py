"""Who answers, in which order things are asked, and what faults do to a client's answer."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from configs.serve_schema import RecordingConfig, RouteConfig, TargetName
from serve.engine import (
    ChoiceEnd,
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestRefused,
    TextDelta,
)
from serve.metrics import Metrics
from serve.recordings import Recorder
from serve.routing import Answering, Route
from serve.shadow import MAX_RUNNING, Shadow
from tests.serve.scripted import QUESTION, Scripted, Step, saying, text_of

BUSY = Overloaded("the line is full", retry_after_s=3)

Build = Callable[..., Route]


def route(config: RouteConfig, *backends: Scripted, recorder: Recorder | None = None) -> Route:
    """A route to backends that are labelled by their targets."""
    named: dict[TargetName, Scripted] = {}
    for backend in backends:
        named[backend.label] = backend  # type: ignore[index]
    return Route("m", config, named, recorder=recorder)


def ask(route: Route, client: str = "team-a") -> Answering:
    return route.answer(QUESTION, client=client, request_id="r1")


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]


def recorded(
    folder: Path, scenario: Callable[[Recorder], Coroutine[Any, Any, None]]
) -> list[dict[str, Any]]:
    """What a scenario leaves behind once the recorder is closed."""

    async def run() -> None:
        recorder = Recorder(folder, RecordingConfig())
        await scenario(recorder)
        await recorder.close()

    asyncio.run(run())
    return records(folder) if folder.exists() else []


def test_the_split_decides_and_the_label_is_there_from_the_first_event() -> None:
    async def run() -> None:
        backends = Scripted("variant", saying("a b")), Scripted("hosted", saying("c d"))
        told = set()
        for number in range(100):
            answering = ask(route(RouteConfig(split={"hosted": 30.0}), *backends), f"c{number}")
            assert answering.target == ""
            async with aclosing(answering.events) as events:
                first = await anext(events)
                assert isinstance(first, TextDelta)
                told.add((answering.target, first.text))
        assert told == {("variant", "a"), ("hosted", "c")}
        assert 10 < len(backends[1].asked) < 50
        assert backends[0].num_open == backends[1].num_open == 0

    asyncio.run(run())


@pytest.mark.parametrize("fault", [BUSY, EngineUnavailable("m is loading")])
def test_the_fallback_answers_where_the_chosen_one_is_full_or_down(fault: Exception) -> None:
    async def run() -> None:
        variant, hosted = Scripted("variant", [fault]), Scripted("hosted", saying("from there"))
        answering = ask(route(RouteConfig(fallback="hosted"), variant, hosted))
        assert await text_of(answering.events) == "from there"
        assert answering.target == "hosted"

    asyncio.run(run())


def test_without_a_fallback_the_error_is_the_clients() -> None:
    async def run() -> None:
        with pytest.raises(Overloaded):
            await text_of(ask(route(RouteConfig(), Scripted("variant", [BUSY]))).events)

    asyncio.run(run())


@pytest.mark.parametrize(
    "fault", [RequestRefused("no images"), ContextExceeded(prompt_tokens=9, context_length=8)]
)
def test_what_the_chosen_one_refuses_does_not_go_to_the_fallback(fault: Exception) -> None:
    async def run() -> None:
        variant, hosted = Scripted("variant", [fault]), Scripted("hosted", saying("never"))
        with pytest.raises(type(fault)):
            await text_of(ask(route(RouteConfig(fallback="hosted"), variant, hosted)).events)
        assert not hosted.asked

    asyncio.run(run())


@pytest.mark.parametrize("fault", [EngineUnavailable("it ended"), EngineError("it broke")])
def test_no_answer_is_stitched_from_two_models(fault: Exception) -> None:
    async def run() -> None:
        variant = Scripted("variant", [TextDelta(text="half of"), fault])
        hosted = Scripted("hosted", saying("another"))
        seen = []
        answering = ask(route(RouteConfig(fallback="hosted"), variant, hosted))
        with pytest.raises(type(fault)):
            async for event in answering.events:
                seen.append(event)
        assert seen == [TextDelta(text="half of")]
        assert answering.target == "variant"
        assert not hosted.asked

    asyncio.run(run())


@pytest.mark.parametrize(
    "fault",
    [EngineUnavailable("no network"), RequestRefused("no images"), EngineError("status 500")],
)
def test_where_the_fallback_cannot_either_the_first_error_stands(fault: Exception) -> None:
    async def run() -> None:
        variant, hosted = Scripted("variant", [BUSY]), Scripted("hosted", [fault])
        with pytest.raises(Overloaded) as raised:
            await text_of(ask(route(RouteConfig(fallback="hosted"), variant, hosted)).events)
        assert raised.value.retry_after_s == 3
        assert raised.value.__cause__ is fault

    asyncio.run(run())


def test_a_fallback_that_breaks_midway_breaks_the_answer() -> None:
    async def run() -> None:
        variant = Scripted("variant", [BUSY])
        hosted = Scripted("hosted", [TextDelta(text="half"), EngineUnavailable("cut")])
        answering = ask(route(RouteConfig(fallback="hosted"), variant, hosted))
        with pytest.raises(EngineUnavailable, match="cut"):
            await text_of(answering.events)
        assert answering.target == "hosted"

    asyncio.run(run())


@pytest.mark.parametrize("config", [RouteConfig(), RouteConfig(fallback="hosted", shadow="base")])
def test_closing_an_answer_ends_the_work_behind_it(config: RouteConfig, tmp_path: Path) -> None:
    async def scenario(recorder: Recorder) -> None:
        variant = Scripted("variant", [TextDelta(text="a"), asyncio.Event()])
        others = Scripted("hosted", saying("x")), Scripted("base", saying("x"))
        answering = ask(route(config, variant, *others, recorder=recorder))
        await anext(answering.events)
        assert variant.num_open == 1
        waiting = asyncio.ensure_future(anext(answering.events))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await answering.events.aclose()
        assert variant.num_open == 0

    assert recorded(tmp_path, scenario) == []


def test_the_shadow_is_asked_once_the_client_has_its_answer(tmp_path: Path) -> None:
    async def scenario(recorder: Recorder) -> None:
        hosted, variant = Scripted("hosted", saying("It is 6 m.")), Scripted("variant", [])
        variant.steps = [0.05, *saying("It is  6 m.")]
        shadowed = route(
            RouteConfig(to="hosted", shadow="variant"), hosted, variant, recorder=recorder
        )
        answering = ask(shadowed)
        events = [event async for event in answering.events]
        assert events == hosted.steps, "the client's answer is untouched"
        assert not variant.asked, "nothing was asked while the client was being answered"
        await asyncio.sleep(0.2)
        assert variant.asked == hosted.asked == [QUESTION]
        await shadowed.close()

    [record] = recorded(tmp_path, scenario)
    assert record["route"] == "m" and record["client"] == "team-a" and record["request_id"] == "r1"
    assert record["main"]["target"] == "hosted" and record["shadow"]["target"] == "variant"
    assert record["equal"] is True
    assert record["shadow"]["outcome"] == "answered"
    assert record["shadow"]["first_token_ms"] > 40 > record["main"]["first_token_ms"]
    assert record["main"]["completion_tokens"] == 4
    assert record["main"]["finish_reasons"] == ["stop"]


def test_a_reader_that_stops_at_the_counts_has_had_its_answer(tmp_path: Path) -> None:
    async def scenario(recorder: Recorder) -> None:
        both = Scripted("hosted", saying("a b")), Scripted("variant", saying("a c"))
        shadowed = route(RouteConfig(to="hosted", shadow="variant"), *both, recorder=recorder)
        async with aclosing(ask(shadowed).events) as events:
            for _ in range(len(both[0].steps)):
                await anext(events)
        await asyncio.sleep(0.01)
        await shadowed.close()

    [record] = recorded(tmp_path, scenario)
    assert record["equal"] is False


@pytest.mark.parametrize(
    ("fault", "outcome", "error"),
    [
        (
            RequestRefused("takes no images", field="messages[0].content"),
            "refused",
            {"type": "RequestRefused", "field": "messages[0].content"},
        ),
        (
            ContextExceeded(prompt_tokens=9, context_length=8),
            "refused",
            {
                "type": "ContextExceeded",
                "field": "messages",
                "prompt_tokens": 9,
                "context_length": 8,
            },
        ),
        (BUSY, "overloaded", {"type": "Overloaded"}),
        (EngineUnavailable("loading"), "unavailable", {"type": "EngineUnavailable"}),
        (EngineError("status 500: How long is it?"), "failed", {"type": "EngineError"}),
        (KeyError("How long is it?"), "failed", {"type": "KeyError"}),
    ],
)
def test_a_shadow_that_does_not_answer_is_recorded_as_what_it_is(
    fault: Exception, outcome: str, error: dict[str, Any], tmp_path: Path
) -> None:
    async def scenario(recorder: Recorder) -> None:
        both = Scripted("hosted", saying("a b")), Scripted("variant", [fault])
        shadowed = route(RouteConfig(to="hosted", shadow="variant"), *both, recorder=recorder)
        assert await text_of(ask(shadowed).events) == "a b"
        await asyncio.sleep(0.01)
        await shadowed.close()

    [record] = recorded(tmp_path, scenario)
    assert record["shadow"]["outcome"] == outcome
    assert record["shadow"]["error"] == error
    assert record["equal"] is None
    assert "How long" not in json.dumps(record)


@pytest.mark.parametrize(
    "steps", [[RequestRefused("no")], [BUSY], [TextDelta(text="half"), EngineError("broke")]]
)
def test_an_answer_that_did_not_end_has_no_shadow(steps: list[Step], tmp_path: Path) -> None:
    variant = Scripted("variant", saying("a"))

    async def scenario(recorder: Recorder) -> None:
        hosted = Scripted("hosted", steps)
        shadowed = route(
            RouteConfig(to="hosted", shadow="variant"), hosted, variant, recorder=recorder
        )
        with pytest.raises((EngineError, RequestRefused)):
            await text_of(ask(shadowed).events)
        await asyncio.sleep(0.01)

    assert recorded(tmp_path, scenario) == []
    assert not variant.asked


def test_who_is_asked_already_is_not_asked_again_as_shadow(tmp_path: Path) -> None:
    variant, hosted = Scripted("variant", [BUSY]), Scripted("hosted", saying("a"))

    async def scenario(recorder: Recorder) -> None:
        config = RouteConfig(fallback="hosted", shadow="hosted")
        shadowed = route(config, variant, hosted, recorder=recorder)
        assert await text_of(ask(shadowed).events) == "a"
        await asyncio.sleep(0.01)

    assert recorded(tmp_path, scenario) == []
    assert len(hosted.asked) == 1


def test_a_slow_shadow_is_given_up_and_too_many_are_left_out(tmp_path: Path) -> None:
    metrics = Metrics()

    async def scenario(recorder: Recorder) -> None:
        hosted = Scripted("hosted", saying("a b"))
        variant = Scripted("variant", [TextDelta(text="a"), asyncio.Event()])
        shadowed = route(
            RouteConfig(to="hosted", shadow="variant"), hosted, variant, recorder=recorder
        )
        shadowed.shadow = Shadow(
            "m", variant, recorder, metrics=metrics, max_running=2, give_up_s=0.1
        )
        for _ in range(5):
            assert await text_of(ask(shadowed).events) == "a b"
        await asyncio.sleep(0.02)
        assert variant.num_open == 2, "no more than may run"
        await asyncio.sleep(0.2)
        assert variant.num_open == 0, "given up, and their work ended"
        assert await text_of(ask(shadowed).events) == "a b"
        await shadowed.close()
        assert await text_of(ask(shadowed).events) == "a b", "without a shadow from now on"

    told = recorded(tmp_path, scenario)
    outcomes = sorted(record["shadow"]["outcome"] for record in told)
    assert outcomes == ["ended", "too_slow", "too_slow"]
    rendered = metrics.render().decode()
    for outcome, count in {"too_many": 3, "too_slow": 2, "ended": 1, "no_pair": 1}.items():
        assert f'outcome="{outcome}",route="m"}} {count}.0' in rendered


def test_a_shadow_ends_with_the_server_and_is_recorded(tmp_path: Path) -> None:
    async def scenario(recorder: Recorder) -> None:
        hosted = Scripted("hosted", saying("a b"))
        variant = Scripted("variant", [asyncio.Event()])
        shadowed = route(
            RouteConfig(to="hosted", shadow="variant"), hosted, variant, recorder=recorder
        )
        await text_of(ask(shadowed).events)  # its shadow is cancelled before it has begun
        await text_of(ask(shadowed).events)
        await shadowed.close()
        await shadowed.close()
        assert variant.num_open == 0

    assert [record["shadow"]["outcome"] for record in recorded(tmp_path, scenario)] == ["ended"] * 2
    assert MAX_RUNNING > 1


def test_a_client_is_not_slowed_by_a_shadow_that_hangs(tmp_path: Path) -> None:
    async def scenario(recorder: Recorder) -> None:
        hosted = Scripted("hosted", saying("a b"))
        variant = Scripted("variant", [asyncio.Event()])
        shadowed = route(
            RouteConfig(to="hosted", shadow="variant"), hosted, variant, recorder=recorder
        )
        async with asyncio.timeout(2):
            for _ in range(200):
                await text_of(ask(shadowed).events)
        await shadowed.close()

    assert len(recorded(tmp_path, scenario)) == MAX_RUNNING


def test_without_a_recorder_no_shadow_is_asked() -> None:
    async def run() -> None:
        both = Scripted("hosted", saying("a b")), Scripted("variant", saying("a"))
        await text_of(ask(route(RouteConfig(to="hosted", shadow="variant"), *both)).events)
        await asyncio.sleep(0.01)
        assert not both[1].asked

    asyncio.run(run())


def test_fallbacks_are_counted() -> None:
    metrics = Metrics()

    async def run() -> None:
        backends: dict[TargetName, Scripted] = {
            "variant": Scripted("my-variant", [BUSY]),
            "hosted": Scripted("hosted/m", [*saying("a"), ChoiceEnd(reason="stop")]),
        }
        config = RouteConfig(fallback="hosted")
        counted = Route("m", config, backends, recorder=None, metrics=metrics)
        await text_of(ask(counted).events)

    asyncio.run(run())
    counted = 'tunery:fallbacks_total{chosen="my-variant",fallback="hosted/m",route="m"} 1.0'
    assert counted in metrics.render().decode()
