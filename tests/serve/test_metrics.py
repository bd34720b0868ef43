"""Which events become which numbers, held against Prometheus's own parser."""

import asyncio
import time
from contextlib import aclosing, suppress

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from serve.engine import (
    ChoiceEnd,
    EngineError,
    EngineUnavailable,
    Events,
    Overloaded,
    RequestRefused,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from serve.metrics import CONTENT_TYPE, Metrics
from tests.serve.scripted import QUESTION, Scripted, Step, saying

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

# As vLLM's docs/usage/metrics.md and vllm/v1/metrics/loggers.py have them.
VLLM_FAMILIES = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
}


def samples(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Of a series of model m; 0 where there is none."""
    of_model = {"model_name": "m", "engine": "0"} if name.startswith("vllm:") else {}
    return samples(metrics).get((name, frozenset({**of_model, **labels}.items())), 0.0)


def finished(metrics: Metrics) -> dict[str, float]:
    """Requests by reason, without the zeros."""
    name = "vllm:request_success_total"
    found = {
        dict(labels)["finished_reason"]: count
        for (sample, labels), count in samples(metrics).items()
        if sample == name
    }
    return {reason: count for reason, count in found.items() if count}


async def read(events: Events) -> None:
    async with aclosing(events):
        async for _ in events:
            pass


def measure(metrics: Metrics, steps: list[Step], *, stop_after: int | None = None) -> None:
    """One request of model m; its reader leaves after so many events."""

    async def run() -> None:
        backend = Scripted("m", steps)
        events = metrics.measure("m", backend.complete(QUESTION))
        async with aclosing(events):
            seen = 0
            async for _ in events:
                seen += 1
                if seen == stop_after:
                    break
        assert backend.num_open == 0, "closing reaches the engine"

    asyncio.run(run())


def test_names_types_and_labels_are_vllms() -> None:
    metrics = Metrics()
    metrics.watch("m", running=lambda: 2, waiting=lambda: 3)
    metrics.observe_wait("m", seconds=0.5)
    families = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}
    for name, kind in VLLM_FAMILIES.items():
        assert families[name].type == kind
        assert families[name].samples, "a watched model has all series from the start"
        for sample in families[name].samples:
            assert {"model_name", "engine"} <= sample.labels.keys()
    assert "version=0.0.4" in CONTENT_TYPE
    assert not any(name.startswith(("vllm", "tunery")) for name in REGISTRY._names_to_collectors)


def test_gauges_are_read_when_they_are_scraped() -> None:
    metrics, running = Metrics(), [1]
    metrics.watch("m", running=lambda: running[0], waiting=lambda: 0)
    metrics.watch_engine("llamacpp", ready=lambda: running[0] == 1)
    assert value(metrics, "vllm:num_requests_running") == 1
    assert value(metrics, "tunery:engine_ready", engine_name="llamacpp") == 1
    running[0] = 7
    assert value(metrics, "vllm:num_requests_running") == 7
    assert value(metrics, "tunery:engine_ready", engine_name="llamacpp") == 0


def test_a_finished_request_is_measured() -> None:
    metrics = Metrics()
    pieces: list[Step] = [0.06, TextDelta(text="a"), 0.03, TextDelta(text="b")]
    end: list[Step] = [ChoiceEnd(reason="stop"), Usage(prompt_tokens=7, completion_tokens=4)]
    measure(metrics, [*pieces, *end])
    assert finished(metrics) == {"stop": 1}
    assert 0.06 <= value(metrics, "vllm:time_to_first_token_seconds_sum") < 0.3
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 1
    assert 0.03 <= value(metrics, "vllm:inter_token_latency_seconds_sum") < 0.2
    assert 0.09 <= value(metrics, "vllm:e2e_request_latency_seconds_sum") < 0.5
    assert value(metrics, "vllm:prompt_tokens_total") == 7
    assert value(metrics, "vllm:generation_tokens_total") == 4
    assert value(metrics, "vllm:request_generation_tokens_bucket", le="2.0") == 0
    assert value(metrics, "vllm:request_generation_tokens_bucket", le="5.0") == 1
    assert value(metrics, "vllm:request_prompt_tokens_sum") == 7


def test_the_time_before_the_first_read_counts() -> None:
    metrics = Metrics()

    async def run() -> None:
        events = metrics.measure("m", Scripted("m", saying("a")).complete(QUESTION))
        await asyncio.sleep(0.05)
        await read(events)

    asyncio.run(run())
    assert value(metrics, "vllm:time_to_first_token_seconds_sum") >= 0.05


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (["stop"], "stop"),
        (["length"], "length"),
        (["tool_calls"], "stop"),
        (["content_filter"], "content_filter"),
        (["stop", "length", "stop"], "length"),
    ],
)
def test_a_request_counts_once_whatever_its_choices(reasons: list[str], told: str) -> None:
    metrics = Metrics()
    steps: list[Step] = []
    for choice, reason in enumerate(reasons):
        call = ToolCallDelta(call=0, id="c", name="f", choice=choice)
        steps += [TextDelta(text="a", choice=choice), call]
        steps.append(ChoiceEnd(reason=reason, choice=choice))  # type: ignore[arg-type]
    measure(metrics, [*steps, Usage(prompt_tokens=1, completion_tokens=2)])
    assert finished(metrics) == {told: 1}
    assert value(metrics, "vllm:time_to_first_token_seconds_count") == 1
    assert value(metrics, "vllm:e2e_request_latency_seconds_count") == 1
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == len(reasons)


def test_times_between_tokens_are_taken_within_each_choice() -> None:
    metrics = Metrics()
    turns: list[Step] = []
    for _ in range(2):
        turns += [TextDelta(text="a", choice=0), 0.05, TextDelta(text="b", choice=1)]
    measure(metrics, [*turns, *saying("x")[-2:]])
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 2
    assert value(metrics, "vllm:inter_token_latency_seconds_sum") >= 0.1


def test_a_reader_that_leaves_midway_is_an_abort_and_leaves_no_latency() -> None:
    metrics = Metrics()
    measure(metrics, saying("a b c"), stop_after=2)
    assert finished(metrics) == {"abort": 1}
    assert value(metrics, "vllm:e2e_request_latency_seconds_count") == 0
    assert value(metrics, "vllm:generation_tokens_total") == 2, "the pieces that were seen"
    assert value(metrics, "vllm:prompt_tokens_total") == 0


def test_a_reader_that_is_cancelled_while_it_waits_is_an_abort() -> None:
    metrics = Metrics()

    async def run() -> None:
        backend = Scripted("m", [asyncio.Event()])
        reading = asyncio.ensure_future(read(metrics.measure("m", backend.complete(QUESTION))))
        await asyncio.sleep(0.01)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        assert backend.num_open == 0

    asyncio.run(run())
    assert finished(metrics) == {"abort": 1}


def test_a_reader_that_stops_at_the_counts_has_had_everything() -> None:
    metrics = Metrics()
    measure(metrics, saying("a b"), stop_after=4)
    assert finished(metrics) == {"stop": 1}
    assert value(metrics, "vllm:generation_tokens_total") == 2


@pytest.mark.parametrize(
    "fault", [Overloaded("full"), EngineUnavailable("loading"), RequestRefused("no images")]
)
def test_what_is_refused_before_it_begins_did_not_run(fault: Exception) -> None:
    metrics = Metrics()
    with pytest.raises(type(fault)):
        measure(metrics, [fault])
    assert finished(metrics) == {}
    assert value(metrics, "vllm:e2e_request_latency_seconds_count") == 0


@pytest.mark.parametrize(
    "steps",
    [
        [EngineError("broke")],
        [TextDelta(text="a"), EngineUnavailable("ended")],
        [TextDelta(text="a"), EngineError("broke")],
        [ChoiceEnd(reason="stop"), EngineUnavailable("ended")],
        [TextDelta(text="a"), KeyError("a fault of ours")],
    ],
)
def test_what_breaks_is_an_error(steps: list[Step]) -> None:
    metrics = Metrics()
    with pytest.raises((EngineError, KeyError)):
        measure(metrics, steps)
    assert finished(metrics) == {"error": 1}
    assert value(metrics, "vllm:e2e_request_latency_seconds_count") == 0


def test_an_engine_that_forgets_the_end_is_an_error() -> None:
    metrics = Metrics()
    measure(metrics, [TextDelta(text="a")])
    assert finished(metrics) == {"error": 1}


def test_models_are_told_apart() -> None:
    metrics = Metrics()
    measure(metrics, saying("a"))
    asyncio.run(read(metrics.measure("other", Scripted("o", saying("a b")).complete(QUESTION))))
    assert value(metrics, "vllm:generation_tokens_total") == 1
    assert value(metrics, "vllm:generation_tokens_total", model_name="other") == 2


def test_our_own_counts() -> None:
    metrics = Metrics()
    metrics.count_refusal("m", 429)
    metrics.count_refusal("m", 429)
    metrics.count_restart("llamacpp")
    metrics.count_shadow("m", "refused")
    metrics.count_recording_error()
    assert value(metrics, "tunery:refusals_total", model_name="m", status="429") == 2
    assert value(metrics, "tunery:engine_restarts_total", engine_name="llamacpp") == 1
    assert value(metrics, "tunery:shadows_total", route="m", outcome="refused") == 1
    assert value(metrics, "tunery:recording_errors_total") == 1


def test_measuring_costs_little() -> None:
    """Ten times what a slow core takes: it is a blunder that this catches, not a busy machine."""
    metrics = Metrics()
    steps: list[Step] = [*[TextDelta(text="a")] * 20_000, *saying("a")[-2:]]

    async def run() -> float:
        plain, measured = Scripted("m", steps), Scripted("m", steps)
        began = time.thread_time()
        await read(plain.complete(QUESTION))
        between = time.thread_time()
        await read(metrics.measure("m", measured.complete(QUESTION)))
        return (time.thread_time() - between) - (between - began)

    assert asyncio.run(run()) / 20_000 < 30e-6
