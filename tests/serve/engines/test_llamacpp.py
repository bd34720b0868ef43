import asyncio
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.conversation import Message
from serve.engine import (
    Completion,
    ContextExceeded,
    EngineModel,
    JsonAnswer,
    RequestRefused,
    TextDelta,
)
from serve.engines.llama_answer import SCHEMA_FIELD
from tests.serve.engines.asking import (
    Answers,
    answers,
    ask,
    assistant,
    new_engine,
    request,
    running,
    text,
    user,
)

WORDS = ["the", "river", "and", "stone", "are", "at", "market", "user", "system"]


def texts_of(given: list[Answers]) -> list[str]:
    return [one.choices[0].text for one in given]


def conversations(num: int) -> list[tuple[Message, ...]]:
    """Prompts that share their first turns or parts of them, and how the last one begins."""
    source = random.Random(0)

    def words(num_words: int) -> str:
        return " ".join(source.choice(WORDS) for _ in range(num_words))

    instructions, opening = words(60), words(90)
    examples = [user(words(9)), assistant(words(5))]
    shared: list[list[Message]] = [
        [{"role": "system", "content": instructions}, *examples],
        [{"role": "system", "content": instructions}],
        [{"role": "system", "content": instructions[:100]}],
        [],
    ]
    return [
        (*shared[index // 2 % 4], user(f"{opening} {words(source.randint(2, 30))}"))
        for index in range(num)
    ]


def test_greedy_answers_depend_on_nothing_that_was_asked_before(tiny_gguf: Path) -> None:
    requests = [request(*messages, max_tokens=50) for messages in conversations(32)]
    order = list(range(len(requests)))
    shuffled = order.copy()
    random.Random(0).shuffle(shuffled)
    asked = [requests[index] for index in [*order, *reversed(order), *shuffled]]
    given = texts_of(answers(tiny_gguf, *asked))
    expected = given[:32]
    assert len(set(expected)) > 16, "the prompts must matter"
    assert given[32:64] == expected[::-1]
    assert given[64:] == [expected[index] for index in shuffled]
    # A restart in the middle, with other requests behind it.
    assert texts_of(answers(tiny_gguf, *requests[17:])) == expected[17:]


def test_a_cancelled_prompt_leaves_no_trace_in_later_answers(tiny_gguf: Path) -> None:
    shared = (user("stone " * 1500), assistant("river"))
    requests = [request(*shared, user(word), max_tokens=60) for word in WORDS]

    async def ask_cancel_ask() -> tuple[list[str], list[str]]:
        async with running(tiny_gguf, context_length=4096) as engine:
            started = time.perf_counter()
            expected = [await text(engine, requests[0])]
            duration = time.perf_counter() - started
            expected += [await text(engine, one) for one in requests[1:]]
            await text(engine, request(user("another"), max_tokens=1))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(text(engine, requests[0]), duration / 3)
            return expected, [await text(engine, one) for one in requests]

    expected, again = asyncio.run(ask_cancel_ask())
    assert again == expected


def test_a_seed_draws_the_same_answer_again_and_others_differ(tiny_gguf: Path) -> None:
    seeds = (1, 1, 2, -1, -1, 2**63, None, None)
    asked = [request(user("river"), max_tokens=20, temperature=1.0, seed=seed) for seed in seeds]
    given = texts_of(answers(tiny_gguf, *asked))
    one, again, two, minus, minus_again, large, free, free_again = given
    assert one == again
    assert minus == minus_again
    assert len({one, two, minus, large, free, free_again}) == 6


def test_choices_are_drawn_apart_and_the_prompt_is_counted_once(tiny_gguf: Path) -> None:
    several = request(
        user("river"), assistant("stone"), user("at"),
        max_tokens=9, temperature=1.0, seed=5, num_choices=3,
    )  # fmt: skip
    both, again, single = answers(tiny_gguf, several, several, replace(several, num_choices=1))
    assert len({choice.text for choice in both.choices}) == 3
    assert both == again
    assert both.choices[:1] == single.choices
    assert both.usage.prompt_tokens == single.usage.prompt_tokens
    assert both.usage.completion_tokens == 27


def test_counts_are_the_engines_own(tiny_gguf: Path) -> None:
    short, longer = answers(
        tiny_gguf,
        request(user("a"), max_tokens=3),
        request(user("a" * 11), max_tokens=7),
    )
    # Ten tokens of ChatML and one for each byte of the text.
    assert (short.usage.prompt_tokens, short.usage.completion_tokens) == (11, 3)
    assert (longer.usage.prompt_tokens, longer.usage.completion_tokens) == (21, 7)
    assert short.choices[0].reason == longer.choices[0].reason == "length"


def test_held_turns_are_counted_in_the_prompt(tiny_gguf: Path) -> None:
    asked = request(user("a"), assistant("b"), user("c"), max_tokens=1)
    first, second = answers(tiny_gguf, asked, asked)
    assert first.usage.prompt_tokens == second.usage.prompt_tokens == 25


def test_an_answer_may_fill_the_context_and_ends_there(tiny_gguf: Path) -> None:
    given = answers(
        tiny_gguf,
        request(user("river")),
        request(user("river"), max_tokens=10**12),
        context_length=256,
    )
    for one in given:
        assert one.choices[0].reason == "length"
        assert one.usage.prompt_tokens + one.usage.completion_tokens == 256


def test_a_prompt_that_fills_the_context_is_refused_with_both_counts(tiny_gguf: Path) -> None:
    fits = request(user("a" * 245), max_tokens=5)
    fills = request(user("a" * 246), max_tokens=5)
    for further in ((), (assistant("b"), user("c"))):  # with turns that are held, too
        with pytest.raises(ContextExceeded) as error:
            answers(
                tiny_gguf, fits, replace(fills, messages=fills.messages + further),
                context_length=256,
            )  # fmt: skip
        assert error.value.prompt_tokens == (270 if further else 256)
        assert error.value.context_length == 256


def test_a_stop_string_cuts_the_same_answer_short(tiny_gguf: Path) -> None:
    asked = request(user("river"), max_tokens=60, top_logprobs=1)
    [whole] = answers(tiny_gguf, asked)
    expected = whole.choices[0].text
    stop = expected[20:23]
    [cut] = answers(tiny_gguf, replace(asked, stop=("never", stop)))
    assert cut.choices[0].text == expected[: expected.index(stop)]
    assert cut.choices[0].reason == "stop"
    assert cut.usage.completion_tokens < 60
    # What is told of tokens ends where the text does.
    told = cut.choices[0].logprobs
    assert told == whole.choices[0].logprobs[: len(told)]
    assert len(told) < cut.usage.completion_tokens
    num_characters = sum(len(one.token) for one in told)
    assert len(cut.choices[0].text) <= num_characters < expected.index(stop) + len(stop)


def test_an_end_that_only_looks_like_a_stop_string_is_kept(tiny_gguf: Path) -> None:
    asked = request(user("river"), max_tokens=20, top_logprobs=0)
    [whole] = answers(tiny_gguf, asked)
    stop = whole.choices[0].text[-1] + "…"
    assert answers(tiny_gguf, replace(asked, stop=(stop,))) == [whole]


def test_log_probabilities_have_as_many_alternatives_as_were_asked_for(tiny_gguf: Path) -> None:
    asked = request(user("river"), max_tokens=6)
    for num_top in (0, 1, 5):
        [given] = answers(tiny_gguf, replace(asked, top_logprobs=num_top))
        told = given.choices[0].logprobs
        assert told
        assert all(len(one.top) == num_top for one in told)
        assert all(one.logprob < 0 for one in told)
        if num_top:
            assert all(one.top[0].utf8 in one.utf8 for one in told), "a greedy answer"
    [without] = answers(tiny_gguf, asked)
    assert not without.choices[0].logprobs


def test_the_templates_own_refusal_names_the_messages(tiny_gguf: Path) -> None:
    for messages in ((user("river"), user("unanswerable")), (user("unanswerable"), user("a"))):
        with pytest.raises(RequestRefused) as error:
            answers(tiny_gguf, request(*messages))
        assert error.value.field == "messages"
        assert str(error.value).endswith("this model takes no unanswerable turns")


def test_json_answers_are_json(tiny_gguf: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    base = request(user("river"), max_tokens=200, temperature=1.0, seed=1)
    fitting, free, cut = answers(
        tiny_gguf,
        replace(base, json_answer=JsonAnswer(schema=schema | {"additionalProperties": False})),
        replace(base, json_answer=JsonAnswer()),
        replace(base, json_answer=JsonAnswer(schema=schema), max_tokens=3),
    )
    assert isinstance(json.loads(fitting.choices[0].text)["a"], int)
    assert free.choices[0].text.startswith("{")
    assert cut.choices[0].reason == "length"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}},
        # Nothing satisfies it.
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    ],
)
def test_a_schema_that_would_not_be_followed_is_refused(
    tiny_gguf: Path, schema: dict[str, Any]
) -> None:
    asked = request(user("river"), max_tokens=200, json_answer=JsonAnswer(schema=schema))

    async def first_event() -> None:
        async with running(tiny_gguf) as engine:
            await anext(engine.complete(asked))

    with pytest.raises(RequestRefused) as error:
        asyncio.run(first_event())
    assert error.value.field == SCHEMA_FIELD


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": "another"}, "model"),
        ({"messages": ({"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}},
        ]},)}, "messages[0].content[1].image_url"),
        ({"messages": (user("a"), {"role": "assistant", "content": "", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "no"}},
        ]})}, "messages[1].tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(
    tiny_gguf: Path, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestRefused) as error:
        answers(tiny_gguf, replace(request(user("a")), **fields))
    assert error.value.field == field


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
    [given] = answers(tiny_gguf, request(user("river"), max_tokens=9, **edge))
    assert given.choices[0].text
    assert given.usage.completion_tokens <= 9


def test_penalties_change_the_answer(tiny_gguf: Path) -> None:
    asked = request(user("river"), max_tokens=60)
    plain, frequent, present = answers(
        tiny_gguf,
        asked,
        replace(asked, frequency_penalty=0.5),
        replace(asked, presence_penalty=2.0),
    )
    assert len({one.choices[0].text for one in (plain, frequent, present)}) == 3


def test_a_conversation_may_be_longer_than_a_line_of_the_wire(tiny_gguf: Path) -> None:
    """The last turn is the assistant's, and there are parts."""
    parts: Message = {
        "role": "user",
        "content": [{"type": "text", "text": "ri"}, {"type": "text", "text": "ver"}],
    }
    whole, joined, _ = answers(
        tiny_gguf,
        request(user("river"), max_tokens=9),
        request(parts, max_tokens=9),
        request(user("river"), assistant("stone"), max_tokens=9),
    )
    assert whole == joined


def test_two_slots_answer_side_by_side(tiny_gguf: Path) -> None:
    async def side_by_side() -> None:
        async with running(tiny_gguf, context_length=2048, num_slots=2) as engine:
            assert engine.capacity == 2
            assert engine.models == (
                EngineModel(name="tiny", context_length=2048, takes_tools=False),
            )
            endless = request(user("river"))
            first, second = engine.complete(endless), engine.complete(endless)
            assert isinstance(await anext(first), TextDelta)
            assert isinstance(await anext(second), TextDelta)
            assert isinstance(await anext(first), TextDelta)
            await first.aclose()
            await second.aclose()

    asyncio.run(side_by_side())


def test_more_requests_than_slots_are_answered_one_after_the_other(tiny_gguf: Path) -> None:
    requests = [request(user(word), max_tokens=9) for word in WORDS]

    async def all_at_once() -> list[Answers]:
        async with running(tiny_gguf) as engine:
            return list(await asyncio.gather(*(ask(engine, one) for one in requests)))

    assert asyncio.run(all_at_once()) == answers(tiny_gguf, *requests)


def test_the_context_is_no_longer_than_the_model_was_trained_for(
    tiny_gguf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def length() -> int | None:
        engine = new_engine(tiny_gguf, context_length=10_000)
        assert engine.models[0].context_length is None
        await engine.start()
        await engine.close()
        return engine.models[0].context_length

    assert asyncio.run(length()) == 8192
    assert "serving 8192" in caplog.text


def test_the_event_loop_keeps_running_beside_an_answer(tiny_gguf: Path) -> None:
    async def longest_pause() -> float:
        async with running(tiny_gguf, context_length=2048) as engine:
            asked: Completion = request(user("stone " * 1000), max_tokens=500)
            work = asyncio.ensure_future(ask(engine, asked))
            pauses = []
            while not work.done():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                pauses.append(time.perf_counter() - before)
            assert len(pauses) > 50
            return sorted(pauses)[len(pauses) // 2]

    assert asyncio.run(longest_pause()) < 0.05
