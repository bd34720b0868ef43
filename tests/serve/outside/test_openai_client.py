"""The unmodified OpenAI client gets all that it knows how to ask for."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from pydantic import BaseModel

from tests.serve.conftest import ALIAS, MODEL
from tests.serve.outside.find_tool import FIND

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "the river"}]


class Place(BaseModel):
    number: int


def test_several_choices_with_their_probabilities(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=6, n=3, seed=1, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        assert choice.logprobs is not None
        tokens = choice.logprobs.content or []
        assert tokens
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 18


def test_a_tool_call_and_its_reply(openai_client: OpenAI) -> None:
    create = openai_client.chat.completions.create
    answer = create(
        model=MODEL,
        messages=QUESTION,
        tools=[FIND],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=500,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "find"
    assert 0 <= json.loads(call.function.arguments)["number"] <= 9
    # The client's own objects go back as they came.
    turns: list[Any] = [
        *QUESTION,
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "a stone"},
    ]
    reply = create(model=MODEL, messages=turns, tools=[FIND], tool_choice="none", max_tokens=5)
    assert reply.choices[0].message.content
    assert not reply.choices[0].message.tool_calls


def test_a_streamed_tool_call_is_the_whole_one(openai_client: OpenAI) -> None:
    with openai_client.chat.completions.stream(
        model=MODEL,
        messages=QUESTION,
        tools=[FIND],
        tool_choice={"type": "function", "function": {"name": "find"}},
        parallel_tool_calls=False,
        max_tokens=500,
        temperature=0,
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    [call] = final.choices[0].message.tool_calls or []
    assert 0 <= json.loads(call.function.arguments)["number"] <= 9


def test_a_pydantic_model_comes_back_parsed(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Place, max_tokens=200, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Place)


def test_counts_of_a_stream(openai_client: OpenAI) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens <= 4


def test_models(openai_client: OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == [MODEL, ALIAS]
    assert openai_client.models.retrieve(ALIAS).owned_by == "tunery"


def test_every_answer_holds_openais_types_strictly(openai_client: OpenAI) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=4, n=2, logprobs=True
    )
    answer = ChatCompletion.model_validate_json(raw.content, strict=True)
    assert len(answer.choices) == 2
    assert raw.headers["x-request-id"] == raw.parse()._request_id


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"extra_body": {"top_k": 4}}, openai.BadRequestError, "top_k"),
        ({"model": "nobody"}, openai.NotFoundError, "model"),
    ],
)
def test_errors_are_the_clients_own(
    openai_client: OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(kind) as error:
        openai_client.chat.completions.create(**{"model": MODEL, "messages": QUESTION} | fields)
    assert error.value.param == param
    assert error.value.type in ("invalid_params", "resource_not_found")
