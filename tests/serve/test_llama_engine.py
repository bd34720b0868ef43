import asyncio
import random
import threading
import time
from pathlib import Path

import pytest

from data.conversation import Message
from serve.engine import Completion, ContextExceeded, EngineError, Finish, RequestRefused, TextDelta
from serve.llama_engine import LlamaCppEngine, default_num_threads
from tests.serve.answers import answer, load_engine, user

WORDS = ["the", "river", "and", "stone", "are", "at", "market", "user", "system"]


def conversations(num: int) -> list[tuple[Message, ...]]:
    """Prompts of which half share their first turns, a quarter share others, a quarter none."""
    source = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(source.choice(WORDS) for _ in range(num_words))

    examples: list[Message] = [
        {"role": "system", "content": text(60)},
        user(text(9)),
        {"role": "assistant", "content": text(5)},
    ]
    system: list[Message] = [{"role": "system", "content": text(30)}]
    shared = [examples, examples, system, []]
    return [(*shared[index % 4], user(text(source.randint(2, 30)))) for index in range(num)]


def answers_in_order(
    engine: LlamaCppEngine, prompts: list[tuple[Message, ...]], order: list[int]
) -> dict[int, tuple[str, Finish]]:
    async def ask_all() -> dict[int, tuple[str, Finish]]:
        return {
            index: await answer(
                engine, Completion(messages=prompts[index], max_tokens=40, temperature=0)
            )
            for index in order
        }

    return asyncio.run(ask_all())


def test_greedy_answers_depend_on_nothing_that_was_asked_before(tiny_gguf: Path) -> None:
    prompts = conversations(24)
    order = list(range(len(prompts)))
    first = load_engine(tiny_gguf)
    expected = answers_in_order(first, prompts, order)
    assert len({text for text, _ in expected.values()}) > 12, "the prompts must matter"
    for seed in range(3):
        random.Random(seed).shuffle(order)
        assert answers_in_order(first, prompts, order) == expected
    first.close()
    second = load_engine(tiny_gguf)  # a restart in the middle, with other requests behind it
    half = order[12:]
    assert answers_in_order(second, prompts, half) == {index: expected[index] for index in half}
    second.close()


def test_a_cancelled_prompt_leaves_no_trace_in_later_answers(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=4096)
    shared = (user("stone " * 1500), Message(role="assistant", content="river"))
    request = Completion(messages=(*shared, user("market")), max_tokens=40, temperature=0)

    async def ask_cancel_ask() -> tuple[str, str]:
        started = time.perf_counter()
        expected, _ = await answer(engine, request)
        duration = time.perf_counter() - started
        await answer(engine, Completion(messages=(user("another"),), max_tokens=1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer(engine, request), duration / 3)
        again, _ = await answer(engine, request)
        return expected, again

    expected, again = asyncio.run(ask_cancel_ask())
    assert again == expected
    engine.close()


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

    async def count(text: str, max_tokens: int) -> Finish:
        request = Completion(messages=(user(text),), max_tokens=max_tokens, temperature=0)
        return (await answer(engine, request))[1]

    short = asyncio.run(count("a", 3))
    longer = asyncio.run(count("a" * 11, 7))
    # ChatML around one byte: <|im_start|> user \n a <|im_end|> \n <|im_start|> assistant \n
    assert short == Finish(reason="length", prompt_tokens=9, completion_tokens=3)
    assert longer == Finish(reason="length", prompt_tokens=19, completion_tokens=7)
    engine.close()


def test_an_answer_may_fill_the_context_and_ends_there(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=256)
    request = Completion(messages=(user("river"),), temperature=0)
    for max_tokens in (None, 10**12):
        _, finish = asyncio.run(
            answer(
                engine, Completion(messages=request.messages, max_tokens=max_tokens, temperature=0)
            )
        )
        assert finish.reason == "length"
        assert finish.prompt_tokens + finish.completion_tokens == 256
    engine.close()


def test_a_prompt_that_fills_the_context_is_refused_with_both_counts(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf, context_length=256)

    async def ask(num_bytes: int) -> Finish:
        request = Completion(messages=(user("a" * num_bytes),), max_tokens=5, temperature=0)
        return (await answer(engine, request))[1]

    assert asyncio.run(ask(247)).prompt_tokens == 255
    with pytest.raises(ContextExceeded) as error:
        asyncio.run(ask(248))
    assert (error.value.prompt_tokens, error.value.context_length) == (256, 256)
    assert "256 tokens" in str(error.value)
    engine.close()


def test_a_stop_string_cuts_the_same_answer_short(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf)
    whole, _ = asyncio.run(
        answer(engine, Completion(messages=(user("river"),), max_tokens=60, temperature=0))
    )
    stop = whole[20:23]
    cut, finish = asyncio.run(
        answer(
            engine,
            Completion(messages=(user("river"),), max_tokens=60, temperature=0, stop=(stop,)),
        )
    )
    assert cut == whole[: whole.index(stop)]
    assert finish.reason == "stop"
    assert finish.completion_tokens < 60
    engine.close()


def test_the_templates_own_refusal_names_the_messages(tiny_gguf: Path) -> None:
    engine = load_engine(tiny_gguf)
    request = Completion(messages=(user("river"), user("unanswerable")))
    with pytest.raises(RequestRefused) as error:
        asyncio.run(answer(engine, request))
    assert error.value.field == "messages"
    assert str(error.value).endswith("this model takes no unanswerable turns")
    engine.close()


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


def test_threads_leave_a_core_to_others() -> None:
    assert default_num_threads() >= 1


def test_engine_errors_are_not_refusals() -> None:
    assert not issubclass(EngineError, RequestRefused)
