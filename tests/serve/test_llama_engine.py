import asyncio
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.conversation import Message
from serve.engine import (
    Completion,
    ContextExceeded,
    EngineError,
    Finish,
    RequestRefused,
    TextDelta,
)
from serve.llama_engine import default_num_threads
from tests.serve.answers import answer, answers, load_engine, user

WORDS = ["the", "river", "and", "stone", "are", "at", "market", "user", "system"]


def conversations(num: int) -> list[tuple[Message, ...]]:
    """Prompts that share their first turns or parts of them, and how the last one begins."""
    source = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(source.choice(WORDS) for _ in range(num_words))

    instructions, opening = text(60), text(90)
    examples = [user(text(9)), Message(role="assistant", content=text(5))]
    shared: list[list[Message]] = [
        [{"role": "system", "content": instructions}, *examples],
        [{"role": "system", "content": instructions}],
        [{"role": "system", "content": instructions[:100]}],
        [],
    ]
    return [
        (*shared[index // 2 % 4], user(f"{opening} {text(source.randint(2, 30))}"))
        for index in range(num)
    ]


def test_greedy_answers_depend_on_nothing_that_was_asked_before(tiny_gguf: Path) -> None:
    requests = [
        Completion(messages=messages, max_tokens=50, temperature=0)
        for messages in conversations(32)
    ]
    order = list(range(len(requests)))
    shuffled = order.copy()
    random.Random(0).shuffle(shuffled)
    first = load_engine(tiny_gguf)
    given = answers(first, *(requests[index] for index in [*order, *reversed(order), *shuffled]))
    first.close()
    expected = given[:32]
    assert len({text for text, _ in expected}) > 16, "the prompts must matter"
    assert given[32:64] == expected[::-1]
    assert given[64:] == [expected[index] for index in shuffled]
    second = load_engine(tiny_gguf)  # a restart in the middle, with other requests behind it
    assert answers(second, *requests[17:]) == expected[17:]
    second.close()


def test_a_cancelled_prompt_leaves_no_trace_in_later_answers(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=4096)
    shared = (user("stone " * 1500), Message(role="assistant", content="river"))
    requests = [
        Completion(messages=(*shared, user(word)), max_tokens=60, temperature=0) for word in WORDS
    ]

    async def ask_cancel_ask() -> tuple[list[str], list[str]]:
        started = time.perf_counter()
        expected = [(await answer(engine, requests[0]))[0]]
        duration = time.perf_counter() - started
        expected += [(await answer(engine, request))[0] for request in requests[1:]]
        await answer(engine, Completion(messages=(user("another"),), max_tokens=1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer(engine, requests[0]), duration / 3)
        return expected, [(await answer(engine, request))[0] for request in requests]

    expected, again = asyncio.run(ask_cancel_ask())
    engine.close()
    assert again == expected


def test_a_seed_draws_the_same_answer_again_and_others_differ(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf)

    async def draw(seed: int | None) -> str:
        request = Completion(messages=(user("river"),), max_tokens=20, temperature=1.0, seed=seed)
        return (await answer(engine, request))[0]

    async def draw_all() -> list[str]:
        return [await draw(seed) for seed in (1, 1, 2, -1, -1, 2**63, None, None)]

    one, again, two, minus, minus_again, large, free, free_again = asyncio.run(draw_all())
    assert one == again
    assert minus == minus_again
    assert len({one, two, minus, large, free, free_again}) == 6
    engine.close()


def test_counts_are_the_engines_own(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf)
    (_, short), (_, longer) = answers(
        engine,
        Completion(messages=(user("a"),), max_tokens=3, temperature=0),
        Completion(messages=(user("a" * 11),), max_tokens=7, temperature=0),
    )
    engine.close()
    # Ten tokens of ChatML and one for each byte of the text.
    assert short == Finish(reason="length", prompt_tokens=11, completion_tokens=3)
    assert longer == Finish(reason="length", prompt_tokens=21, completion_tokens=7)


def test_an_answer_may_fill_the_context_and_ends_there(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=256)
    given = answers(
        engine,
        Completion(messages=(user("river"),), temperature=0),
        Completion(messages=(user("river"),), temperature=0, max_tokens=10**12),
    )
    engine.close()
    for _, finish in given:
        assert finish.reason == "length"
        assert finish.prompt_tokens + finish.completion_tokens == 256


def test_a_prompt_that_fills_the_context_is_refused_with_both_counts(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=256)
    fits = Completion(messages=(user("a" * 245),), max_tokens=5, temperature=0)
    fills = Completion(messages=(user("a" * 246),), max_tokens=5, temperature=0)
    with pytest.raises(ContextExceeded) as error:
        answers(engine, fits, fills)
    engine.close()
    assert (error.value.prompt_tokens, error.value.context_length) == (256, 256)
    assert "256 tokens" in str(error.value)


def test_a_stop_string_cuts_the_same_answer_short(tiny_gguf: Path) -> None:
    request = Completion(messages=(user("river"),), max_tokens=60, temperature=0)
    first, second = load_engine(tiny_gguf), load_engine(tiny_gguf)
    [(whole, _)] = answers(first, request)
    stop = whole[20:23]
    [(cut, finish)] = answers(second, replace(request, stop=(stop,)))
    first.close()
    second.close()
    assert cut == whole[: whole.index(stop)]
    assert finish.reason == "stop"
    assert finish.completion_tokens < 60


def test_an_end_that_only_looks_like_a_stop_string_is_kept(tiny_gguf: Path) -> None:
    request = Completion(messages=(user("river"),), max_tokens=20, temperature=0)
    first, second = load_engine(tiny_gguf), load_engine(tiny_gguf)
    [whole] = answers(first, request)
    assert answers(second, replace(request, stop=(whole[0][-1] + "…",))) == [whole]
    first.close()
    second.close()


def test_the_templates_own_refusal_names_the_messages(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf)
    request = Completion(messages=(user("river"), user("unanswerable")))
    with pytest.raises(RequestRefused) as error:
        asyncio.run(answer(engine, request))
    assert error.value.field == "messages"
    assert str(error.value).endswith("this model takes no unanswerable turns")
    engine.close()


def test_a_fault_in_the_slots_thread_is_an_error_and_not_a_wait(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(tiny_gguf)
    monkeypatch.delattr("serve.llama_engine.StopStrings")
    with pytest.raises(EngineError, match="StopStrings"):
        answers(engine, Completion(messages=(user("river"),), max_tokens=1))
    engine.close()


@pytest.mark.parametrize(
    "edge",
    [
        {"temperature": 1e-30},
        {"temperature": 2.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 0.0, "frequency_penalty": 2.0, "presence_penalty": -2.0},
        {"temperature": 0.0, "seed": -(2**70)},
    ],
)
def test_the_edges_of_the_ranges_are_answered(tiny_gguf: Path, edge: dict[str, Any]) -> None:
    engine = load_engine(tiny_gguf)
    [(text, finish)] = answers(engine, Completion(messages=(user("river"),), max_tokens=9, **edge))
    engine.close()
    assert text
    assert finish.completion_tokens <= 9


def test_leaving_an_answer_frees_its_slot(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=8192)

    async def leave_and_ask() -> float:
        endless = engine.complete(Completion(messages=(user("river"),), temperature=0))
        assert isinstance(await anext(endless), TextDelta)
        left = time.perf_counter()
        await endless.aclose()
        await answer(engine, Completion(messages=(user("stone"),), max_tokens=1))
        return time.perf_counter() - left

    assert asyncio.run(leave_and_ask()) < 0.5
    engine.close()


def test_two_slots_answer_side_by_side(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=2048, num_slots=2)
    assert engine.context_length == 2048

    async def side_by_side() -> None:
        endless = Completion(messages=(user("river"),), temperature=0)
        first, second = engine.complete(endless), engine.complete(endless)
        assert isinstance(await anext(first), TextDelta)
        assert isinstance(await anext(second), TextDelta)
        assert isinstance(await anext(first), TextDelta)
        await first.aclose()
        await second.aclose()

    asyncio.run(side_by_side())
    engine.close()


def test_the_event_loop_keeps_running_beside_an_answer(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=2048)

    async def longest_pause() -> float:
        request = Completion(messages=(user("stone " * 1000),), max_tokens=500, temperature=0)
        work = asyncio.ensure_future(answer(engine, request))
        pauses = []
        while not work.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - before)
        assert len(pauses) > 50
        return sorted(pauses)[len(pauses) // 2]

    assert asyncio.run(longest_pause()) < 0.05
    engine.close()


def test_close_ends_a_running_answer_and_all_threads(tiny_gguf: Path) -> None:
    before = set(threading.enumerate())
    engine = load_engine(tiny_gguf, context_length=8192)

    async def close_while_running() -> None:
        endless = engine.complete(Completion(messages=(user("river"),), temperature=0))
        await anext(endless)
        started = time.perf_counter()
        engine.close()
        assert time.perf_counter() - started < 1
        await endless.aclose()

    asyncio.run(close_while_running())
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("cores", "threads"), [({0}, 1), ({0, 1}, 1), ({2, 3, 5, 7}, 3)])
def test_threads_leave_a_core_to_others(
    cores: set[int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: cores)
    assert default_num_threads() == threads
