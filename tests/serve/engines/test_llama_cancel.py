"""A slot is free within half a second of its client's going, wherever its work has come to."""

import asyncio
import time
from pathlib import Path

import pytest

from serve.engine import TextDelta
from serve.engines.llamacpp import LlamaCppEngine
from tests.serve.engines.asking import ask, assistant, request, running, user

LONG = user("stone " * 4000)
BOUND_S = 0.5


async def seconds_until_free(engine: LlamaCppEngine) -> float:
    """What a short request takes that comes now."""
    started = time.perf_counter()
    await ask(engine, request(user("stone"), max_tokens=1))
    return time.perf_counter() - started


def test_leaving_an_answer_frees_its_slot(tiny_gguf: Path) -> None:
    async def leave() -> float:
        async with running(tiny_gguf, context_length=8192) as engine:
            endless = engine.complete(request(user("river")))
            assert isinstance(await anext(endless), TextDelta)
            await endless.aclose()
            return await seconds_until_free(engine)

    assert asyncio.run(leave()) < BOUND_S


@pytest.mark.parametrize("num_slots", [1, 2])
@pytest.mark.parametrize("held", [False, True])
def test_leaving_while_the_prompt_is_evaluated_frees_the_slot(
    tiny_gguf: Path, num_slots: int, held: bool
) -> None:
    """Before the first byte of the answer, in the turns that are held as in the last one."""
    messages = (LONG, assistant("a"), user("b")) if held else (LONG,)

    async def leave() -> tuple[float, float]:
        async with running(tiny_gguf, context_length=8192, num_slots=num_slots) as engine:
            started = time.perf_counter()
            await ask(engine, request(*messages, max_tokens=1))
            whole = time.perf_counter() - started
            # Another conversation, so that nothing of the first one helps.
            others = (user("x" + str(messages[0]["content"])), *messages[1:])
            work = [
                asyncio.create_task(ask(engine, request(*others, max_tokens=1)))
                for _ in range(num_slots)
            ]
            await asyncio.sleep(whole / 4)
            assert not any(one.done() for one in work)
            for one in work:
                one.cancel()
            return whole, await seconds_until_free(engine)

    whole, waited = asyncio.run(leave())
    assert waited < BOUND_S
    assert waited < whole / 2, "it would have been free by itself"


def test_leaving_in_the_line_before_the_slot_takes_no_slot(tiny_gguf: Path) -> None:
    async def leave() -> float:
        async with running(tiny_gguf, context_length=8192) as engine:
            endless = engine.complete(request(user("river")))
            await anext(endless)
            waiting = asyncio.create_task(ask(engine, request(user("river"))))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await endless.aclose()
            return await seconds_until_free(engine)

    assert asyncio.run(leave()) < BOUND_S
