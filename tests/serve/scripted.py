"""Backends that say what they were told to, for orders and faults that no engine makes to order."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from configs.serve_schema import RouteConfig
from serve.access.keys import KeyRing
from serve.engine import (
    ChoiceEnd,
    Completion,
    EngineModel,
    Event,
    Events,
    FinishReason,
    TextDelta,
    Usage,
)
from serve.images.load import ImageLoader
from serve.metrics import Metrics
from serve.routing import Route
from serve.service import ServedModel, Service
from serve.workbench.folder import Workbench

Step = Event | Exception | asyncio.Event | float
"""An event to yield, an exception to raise, something to wait for, or seconds to pass."""

QUESTION = Completion(model="m", messages=({"role": "user", "content": "How long is it?"},))


def saying(text: str, *, reason: FinishReason = "stop") -> list[Step]:
    """An answer, word by word."""
    words = text.split(" ")
    pieces = [TextDelta(text=word if i == 0 else f" {word}") for i, word in enumerate(words)]
    usage = Usage(prompt_tokens=5, completion_tokens=len(words))
    return [*pieces, ChoiceEnd(reason=reason), usage]


class Scripted:
    """A backend of the same steps at each request."""

    def __init__(self, label: str, steps: Sequence[Step]) -> None:
        self.label = label
        self.model = EngineModel(name=label, context_length=None)
        self.steps = list(steps)
        self.asked: list[Completion] = []
        self.num_open = 0

    async def complete(self, request: Completion) -> Events:
        self.asked.append(request)
        self.num_open += 1
        try:
            for step in self.steps:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.num_open -= 1


def scripted_service(
    name: str,
    steps: Sequence[Step],
    *,
    keys_file: Path | None = None,
    workbench: Workbench | None = None,
) -> Service:
    """One scripted backend behind the interface, under `name`."""
    route = Route(name, RouteConfig(), {"variant": Scripted(name, steps)}, recorder=None)
    return Service(
        engines=[],
        hosts=[],
        models={name: ServedModel(name=name, to="variant", route=route)},
        metrics=Metrics(),
        keys=KeyRing(keys_file),
        images=ImageLoader(fetch_urls=False),
        recorder=None,
        workbench=workbench,
        renew=None,
        max_body_bytes=2**20,
        keep_alive_s=10.0,
    )


async def text_of(events: Events) -> str:
    """All text of an answer, read to its end."""
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])
