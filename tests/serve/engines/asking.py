"""Asking a llama.cpp engine directly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.conversation import Message
from serve.engine import (
    ChoiceEnd,
    Completion,
    Engine,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from serve.engines.llamacpp import LlamaCppEngine

MODEL = "tiny"


@dataclass
class Call:
    """A call that an answer makes."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Answer:
    """One choice, put together."""

    text: str = ""
    reason: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """What kinds of events came, in order."""


@dataclass
class Answers:
    """A request's whole answer."""

    choices: list[Answer]
    usage: Usage


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def request(*messages: Message, **fields: Any) -> Completion:  # noqa: ANN401 (any field)
    """A greedy one, where nothing else is said."""
    given: dict[str, Any] = {"model": MODEL, "messages": messages, "temperature": 0} | fields
    return Completion(**given)


def new_engine(model: Path, **options: Any) -> LlamaCppEngine:  # noqa: ANN401 (any option)
    fields: dict[str, Any] = {"num_threads": 1, "context_length": 512, "num_slots": 1}
    return LlamaCppEngine(model, model=MODEL, **(fields | options))


@asynccontextmanager
async def running(model: Path, **options: Any) -> AsyncIterator[LlamaCppEngine]:  # noqa: ANN401
    """An engine that answers until the block ends."""
    engine = new_engine(model, **options)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def ask(engine: Engine, asked: Completion) -> Answers:
    """The whole answer; checks what holds for each stream of events."""
    choices = [Answer() for _ in range(asked.num_choices)]
    usage = None
    async for event in engine.complete(asked):
        assert usage is None, "usage is the last event"
        if isinstance(event, Usage):
            usage = event
            continue
        choice = choices[event.choice]
        assert not choice.reason, "an answer's end is its last event"
        if choice.kinds[-1:] != [type(event).__name__]:
            choice.kinds.append(type(event).__name__)
        if isinstance(event, TextDelta):
            assert event.text
            choice.text += event.text
            choice.logprobs += event.logprobs
        elif isinstance(event, ToolCallDelta):
            _add_call(choice, event)
        else:
            assert isinstance(event, ChoiceEnd)
            choice.reason = event.reason
    assert usage is not None
    assert all(choice.reason for choice in choices)
    return Answers(choices, usage)


def _add_call(choice: Answer, event: ToolCallDelta) -> None:
    if event.call == len(choice.calls):
        assert event.id
        assert event.name
        choice.calls.append(Call(event.id, event.name))
    else:
        assert event.id is None
        assert event.name is None
    choice.calls[event.call].arguments += event.arguments


async def text(engine: Engine, asked: Completion) -> str:
    return (await ask(engine, asked)).choices[0].text


def answers(model: Path, *requests: Completion, **options: Any) -> list[Answers]:  # noqa: ANN401
    """One after the other, of a new engine."""

    async def ask_all() -> list[Answers]:
        async with running(model, **options) as engine:
            return [await ask(engine, one) for one in requests]

    return asyncio.run(ask_all())
