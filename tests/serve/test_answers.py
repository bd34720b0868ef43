"""What clients get of an engine's events, parsed by OpenAI's own types."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serve.answers import DONE, AnswerStream, whole_answer
from serve.engine import (
    Alternative,
    ChoiceEnd,
    Completion,
    EngineError,
    Event,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

TOKEN = TokenLogprob(
    token="né",
    utf8="né".encode(),
    logprob=-0.5,
    top=(Alternative(token="a", utf8=b"\xff", logprob=-1.5),),
)
TEXT: list[Event] = [
    TextDelta(text="ri"),
    TextDelta(text="ver", choice=1, logprobs=(TOKEN,)),
    ChoiceEnd(reason="length"),
    TextDelta(text="né", choice=1, logprobs=(TOKEN, TOKEN)),
    ChoiceEnd(reason="stop", choice=1),
    Usage(prompt_tokens=7, completion_tokens=5),
]
CALLS: list[Event] = [
    ToolCallDelta(call=0, id="a12345678", name="find", arguments='{"q"'),
    ToolCallDelta(call=0, arguments=': "né"}'),
    ToolCallDelta(call=1, id="b12345678", name="stop"),
    ToolCallDelta(call=1, arguments="{}"),
    ChoiceEnd(reason="tool_calls"),
    Usage(prompt_tokens=7, completion_tokens=5),
]


def request(num_choices: int = 1, top_logprobs: int | None = None) -> Completion:
    return Completion(
        model="m",
        messages=({"role": "user", "content": "a"},),
        num_choices=num_choices,
        top_logprobs=top_logprobs,
    )


async def stream_of(events: list[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


def whole(events: list[Event], **fields: int) -> ChatCompletion:
    body = asyncio.run(whole_answer(stream_of(events), model="name", request=request(**fields)))
    return ChatCompletion.model_validate_json(body, strict=True)


def chunks(events: list[Event], *, include_usage: bool = False, **fields: int) -> list[Any]:
    stream = AnswerStream(model="name", request=request(**fields), include_usage=include_usage)
    sent = stream.opening() + b"".join(stream.render(event) for event in events) + DONE
    lines = [line.removeprefix(b"data: ") for line in sent.split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    return [ChatCompletionChunk.model_validate_json(line, strict=True) for line in lines]


def test_choices_and_counts_of_a_whole_answer() -> None:
    answer = whole(TEXT, num_choices=2)
    assert [choice.message.content for choice in answer.choices] == ["ri", "verné"]
    assert [choice.finish_reason for choice in answer.choices] == ["length", "stop"]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.logprobs for choice in answer.choices] == [None, None]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 12)
    assert (answer.model, answer.object) == ("name", "chat.completion")


def test_logprobs_stand_where_they_were_asked_for() -> None:
    answer = whole(TEXT, num_choices=2, top_logprobs=1)
    assert answer.choices[1].logprobs is not None
    tokens = answer.choices[1].logprobs.content or []
    assert [token.token for token in tokens] == ["né"] * 3
    assert bytes(tokens[0].bytes or []).decode() == "né"
    assert tokens[0].logprob == -0.5
    assert [(other.token, other.bytes) for other in tokens[0].top_logprobs] == [("a", [255])]
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content == []


def test_calls_of_a_whole_answer() -> None:
    message = whole(CALLS).choices[0].message
    assert message.content is None
    calls = [call.model_dump() for call in message.tool_calls or []]
    assert [call["id"] for call in calls] == ["a12345678", "b12345678"]
    assert [call["index"] for call in calls] == [0, 1]
    assert calls[0]["function"] == {"name": "find", "arguments": '{"q": "né"}'}
    beside = [TextDelta(text="I look"), *CALLS]
    assert whole(beside).choices[0].message.content == "I look"


def test_a_stream_says_all_that_a_whole_answer_says() -> None:
    parts = chunks(TEXT, num_choices=2, top_logprobs=1)
    roles = [(part.choices[0].index, part.choices[0].delta.role) for part in parts[:2]]
    assert roles == [(0, "assistant"), (1, "assistant")]
    for index, expected in enumerate(["ri", "verné"]):
        own = [part.choices[0] for part in parts if part.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == expected
        assert [choice.finish_reason for choice in own][:-1] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == ("length", "stop")[index]
    assert len({(part.id, part.created, part.model) for part in parts}) == 1
    assert (
        sum(len(part.choices[0].logprobs.content) for part in parts if part.choices[0].logprobs)
        == 3
    )
    assert all("usage" not in part.model_fields_set for part in parts)


def test_counts_of_a_stream_come_last_and_alone() -> None:
    *others, last = chunks(TEXT, num_choices=2, include_usage=True)
    assert last.choices == []
    assert last.usage.total_tokens == 12
    assert all(part.usage is None and "usage" in part.model_fields_set for part in others)


def test_calls_of_a_stream_name_themselves_once() -> None:
    deltas = [call for part in chunks(CALLS) for call in part.choices[0].delta.tool_calls or []]
    assert [call.index for call in deltas] == [0, 0, 1, 1]
    assert [call.id for call in deltas] == ["a12345678", None, "b12345678", None]
    assert [call.function.name for call in deltas] == ["find", None, "stop", None]
    first = "".join(call.function.arguments for call in deltas[:2])
    assert json.loads(first) == {"q": "né"}


def test_an_answer_without_an_end_is_the_engines_fault() -> None:
    with pytest.raises(EngineError, match="no end"):
        whole(TEXT[:3], num_choices=2)


def test_counts_that_nobody_took_are_left_out() -> None:
    assert whole(TEXT[:-1], num_choices=2).usage is None
