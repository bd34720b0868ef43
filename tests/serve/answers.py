"""Asking an engine directly."""

import asyncio
from pathlib import Path

from data.conversation import Message
from serve.engine import Completion, Engine, Finish, TextDelta
from serve.llama_engine import LlamaCppEngine


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def load_engine(model: Path, *, context_length: int = 512, num_slots: int = 1) -> LlamaCppEngine:
    return LlamaCppEngine(model, num_threads=1, context_length=context_length, num_slots=num_slots)


async def answer(engine: Engine, request: Completion) -> tuple[str, Finish]:
    """The whole text, and how it ended."""
    texts = []
    async for event in engine.complete(request):
        if isinstance(event, TextDelta):
            texts.append(event.text)
        else:
            return "".join(texts), event
    raise AssertionError("the answer has no end")


def answers(engine: Engine, *requests: Completion) -> list[tuple[str, Finish]]:
    """Ask one after the other; an engine is for one event loop, so once per engine."""

    async def ask_all() -> list[tuple[str, Finish]]:
        return [await answer(engine, request) for request in requests]

    return asyncio.run(ask_all())
