"""Two real llama.cpp processes behind one model name: shadow, fallback and what is measured."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

from configs.serve_schema import RecordingConfig, RouteConfig, TargetName
from serve.admission import WaitingLine
from serve.backend import Backend
from serve.engine import Completion
from serve.engines.llamacpp import LlamaCppEngine
from serve.metrics import Metrics
from serve.recordings import Recorder
from serve.routing import Route
from tests.serve.scripted import text_of

QUESTION = Completion(
    model="as the client calls it",
    messages=({"role": "user", "content": "the river"},),
    temperature=0.0,
    max_tokens=12,
)


def build_engine(file: Path, name: str) -> LlamaCppEngine:
    return LlamaCppEngine(file, model=name, num_threads=1, context_length=512, num_slots=1)


def build_backend(engine: LlamaCppEngine, name: str, metrics: Metrics) -> Backend:
    """The engine with one slot, and nobody waiting."""
    line = WaitingLine(num_slots=1, max_waiting=0)
    return Backend(label=name, engine=engine, model_name=name, line=line, metrics=metrics)


def test_two_engines_shadow_and_stand_in_for_each_other(tiny_gguf: Path, tmp_path: Path) -> None:
    metrics = Metrics()

    async def run() -> None:
        ours, theirs = build_engine(tiny_gguf, "ours"), build_engine(tiny_gguf, "theirs")
        backends: dict[TargetName, Backend] = {
            "variant": build_backend(ours, "ours", metrics),
            "base": build_backend(theirs, "theirs", metrics),
        }
        recorder = Recorder(tmp_path, RecordingConfig(texts=True))
        standing_in = Route(
            "m", RouteConfig(fallback="base"), backends, recorder=None, metrics=metrics
        )
        shadowed = Route("m", RouteConfig(shadow="base"), backends, recorder=recorder)
        try:
            await theirs.start()
            loading = standing_in.answer(QUESTION, client="c", request_id="r0")
            text = await text_of(loading.events)
            assert loading.target == "theirs", "ours is not even loading"
            await ours.start()

            first = standing_in.answer(QUESTION, client="c", request_id="r1")
            async with aclosing(first.events) as events:
                await anext(events)
                second = standing_in.answer(QUESTION, client="c", request_id="r2")
                assert await text_of(second.events) == text
                assert (first.target, second.target) == ("ours", "theirs")

            asked = shadowed.answer(QUESTION, client="c", request_id="r3")
            assert await text_of(asked.events) == text
            assert asked.target == "ours"
            async with asyncio.timeout(10):
                while not list(tmp_path.iterdir()):
                    await asyncio.sleep(0.02)
        finally:
            await shadowed.close()
            await ours.close()
            await theirs.close()
            await recorder.close()

    asyncio.run(run())
    [file] = tmp_path.iterdir()
    [record] = [json.loads(line) for line in file.read_text().splitlines()]
    assert record["request_id"] == "r3"
    assert (record["main"]["target"], record["shadow"]["target"]) == ("ours", "theirs")
    assert record["shadow"]["outcome"] == "answered" and record["equal"] is True
    assert record["main"]["answers"] == record["shadow"]["answers"]
    assert record["main"]["completion_tokens"] == record["shadow"]["completion_tokens"] == 12
    rendered = metrics.render().decode()
    for name, reason, count in (
        ("ours", "abort", 1),
        ("ours", "length", 1),
        ("theirs", "length", 3),
    ):
        labels = f'engine="0",finished_reason="{reason}",model_name="{name}"'
        assert f"vllm:request_success_total{{{labels}}} {count}.0" in rendered
    assert 'tunery:fallbacks_total{chosen="ours",fallback="theirs",route="m"} 2.0' in rendered
