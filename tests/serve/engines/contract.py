"""What every engine does, whoever it is: each check asks one, over whatever wire it has."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from data.conversation import ToolDefinition
from serve.engine import (
    Completion,
    ContextExceeded,
    Engine,
    EngineUnavailable,
    Event,
    ForcedFunction,
    JsonAnswer,
    RequestRefused,
    TextDelta,
)
from tests.serve.engines.asking import ask, user

CANCEL_S = 0.5
QUESTION = user("the river and the stone")


def tool(name: str) -> ToolDefinition:
    """A function of one number."""
    parameters = {
        "type": "object",
        "properties": {"number": {"type": "integer"}},
        "required": ["number"],
        "additionalProperties": False,
    }
    function = {"name": name, "description": "Looks it up.", "parameters": parameters}
    return {"type": "function", "function": function}


@dataclass(frozen=True)
class Contract:
    """The checks. num_slots: requests answered at a time; counts_choices: whether usage counts all
    answers of a request.
    """

    engine: Engine
    num_slots: int = 1
    counts_choices: bool = True

    def request(self, **fields: object) -> Completion:
        """A greedy one without tools."""
        given = {"messages": (QUESTION,), "temperature": 0.0, "max_tokens": 12} | fields
        return Completion(model=self.engine.models[0].name, **given)  # type: ignore[arg-type]

    async def check_text_and_usage(self) -> None:
        answer = await ask(self.engine, self.request())
        assert answer.choices[0].text
        assert answer.choices[0].reason == "length"
        assert answer.usage.completion_tokens == 12
        longer = (user("the stone " * 20 + "the river"),)
        assert (
            await ask(self.engine, self.request(messages=longer))
        ).usage.prompt_tokens > answer.usage.prompt_tokens + 20

    async def check_stop(self) -> None:
        asked = self.request(seed=3, temperature=1.0, max_tokens=40)
        text = (await ask(self.engine, asked)).choices[0].text
        stop = text[len(text) // 2 :][:3]
        stopped = (await ask(self.engine, replace(asked, stop=(stop, "\0never")))).choices[0]
        assert stopped.reason == "stop"
        assert stopped.text == text[: text.index(stop)]

    async def check_seed(self) -> None:
        asked = self.request(temperature=1.0, max_tokens=20)
        texts = [
            (await ask(self.engine, replace(asked, seed=seed))).choices[0].text
            for seed in (1, 1, 2, 2**70, None, None)
        ]
        assert texts[0] == texts[1]
        assert len(set(texts)) == 5

    async def check_several_choices(self) -> None:
        asked = self.request(temperature=1.0, seed=1, num_choices=3, max_tokens=20)
        answer = await ask(self.engine, asked)
        assert len({choice.text for choice in answer.choices}) == 3
        if self.counts_choices:
            assert answer.usage.completion_tokens > 20

    async def check_several_greedy_choices(self) -> None:
        answer = await ask(self.engine, self.request(num_choices=2))
        assert answer.choices[0].text == answer.choices[1].text
        if self.counts_choices:
            assert answer.usage.completion_tokens == 24

    async def check_logprobs(self) -> None:
        asked = self.request(top_logprobs=3, temperature=1.0, seed=1)
        answer = (await ask(self.engine, asked)).choices[0]
        assert answer.logprobs
        told = b"".join(token.utf8 for token in answer.logprobs)
        assert told.decode(errors="replace") == answer.text
        for token in answer.logprobs:
            assert len(token.top) == 3
            assert token.logprob <= 0
            assert all(one.logprob >= other.logprob for one, other in pairwise(token.top))
            assert sum(math.exp(one.logprob) for one in token.top) < 1.001
        assert not (await ask(self.engine, self.request())).choices[0].logprobs

    async def check_tools(self) -> None:
        """The model calls tools now and then; its pieces make up whole calls of what is there."""
        tools = (tool("find_stone"), tool("find_river"))
        num_called = 0
        for seed in range(30):
            asked = self.request(tools=tools, temperature=1.0, seed=seed, max_tokens=300)
            answer = (await ask(self.engine, asked)).choices[0]
            assert not answer.calls or answer.reason in ("tool_calls", "length")
            if answer.reason != "tool_calls":
                continue
            num_called += 1
            assert answer.calls
            for call in answer.calls:
                assert call.id
                assert call.name in ("find_stone", "find_river")
                assert isinstance(json.loads(call.arguments), dict)
            if num_called == 3:
                return
        raise AssertionError(f"{num_called} calls")

    async def check_forced_tool(self) -> None:
        tools = (tool("find_stone"), tool("find_river"), tool("find_market"))
        for name in ("find_stone", "find_market"):
            asked = self.request(
                tools=tools,
                tool_choice=ForcedFunction(name),
                temperature=1.0,
                seed=1,
                max_tokens=300,
            )
            answer = (await ask(self.engine, asked)).choices[0]
            assert answer.reason == "tool_calls"
            assert {call.name for call in answer.calls} == {name}
            assert isinstance(json.loads(answer.calls[0].arguments)["number"], int)

    async def check_json_schema(self) -> None:
        schema = {
            "type": "object",
            "properties": {"far": {"type": "boolean"}, "how": {"enum": ["on foot", "by car"]}},
            "required": ["far", "how"],
            "additionalProperties": False,
        }
        asked = self.request(
            json_answer=JsonAnswer(schema=schema), temperature=1.0, seed=1, max_tokens=300
        )
        answer = (await ask(self.engine, asked)).choices[0]
        told = json.loads(answer.text)
        assert isinstance(told["far"], bool)
        assert told["how"] in ("on foot", "by car")
        assert len(told) == 2
        assert answer.reason == "stop"

    async def check_context_error(self) -> None:
        length = self.engine.models[0].context_length
        assert length is not None
        with pytest.raises(ContextExceeded) as caught:
            await ask(self.engine, self.request(messages=(user("the river " * length),)))
        assert caught.value.context_length == length
        assert caught.value.prompt_tokens > length
        assert caught.value.field == "messages"

    async def check_refusal(self) -> None:
        """What no engine can follow is the request's fault, and the next one is answered."""
        schema = {"type": "object", "properties": {"far": {"$ref": "#/nowhere"}}}
        with pytest.raises(RequestRefused):
            await ask(self.engine, self.request(json_answer=JsonAnswer(schema=schema)))
        await self.check_text_and_usage()

    async def check_cancel(self) -> None:
        """With all slots taken, the next answer shows that the ones before have ended."""
        endless = self.request(max_tokens=None)
        async with AsyncExitStack() as stack:
            for _ in range(self.num_slots):
                answer = self.engine.complete(endless)
                await stack.enter_async_context(aclosing(answer))
                await anext(answer)
        await self._check_free()
        waiting = [
            asyncio.ensure_future(_first(self.engine, endless)) for _ in range(self.num_slots)
        ]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await self._check_free()

    async def check_death_in_the_middle(self, kill: Callable[[], None]) -> None:
        """Whoever waits hears of it at once."""
        async with aclosing(self.engine.complete(self.request(max_tokens=None))) as events:
            await anext(events)
            kill()
            started = time.monotonic()
            with pytest.raises(EngineUnavailable) as caught:
                async for _ in events:
                    pass
        assert time.monotonic() - started < 2
        assert caught.value.retry_after_s > 0
        with pytest.raises(EngineUnavailable):
            await ask(self.engine, self.request())

    async def _check_free(self) -> None:
        started = time.monotonic()
        await ask(self.engine, self.request(max_tokens=1))
        assert time.monotonic() - started < CANCEL_S


async def _first(engine: Engine, asked: Completion) -> Event:
    async with aclosing(engine.complete(asked)) as events:
        event = await anext(events)
        assert isinstance(event, TextDelta)
        return event


LAST_CHECK = "check_death_in_the_middle"
CHECKS = sorted(name for name in vars(Contract) if name.startswith("check_") and name != LAST_CHECK)
