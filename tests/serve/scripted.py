"""Backends that say what they were told to, for orders and faults that no engine makes to order."""

import asyncio
from collections.abc import Sequence

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


async def text_of(events: Events) -> str:
    """All text of an answer, read to its end."""
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])
