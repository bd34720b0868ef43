"""What the official clients really send is taken, with what was meant by it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from mistralai.client import Mistral
from mistralai.client import models as mistral
from mistralai.client.errors import MistralError
from openai import OpenAI
from pydantic import BaseModel

from serve.engine import Completion, ForcedFunction, JsonAnswer
from serve.request.chat_request import SAFE_PROMPT, parse_chat_request
from tests.serve.request.bodies import PIXEL
from tests.serve.wire import Wire, open_wire


@contextmanager
def openai_client() -> Iterator[tuple[OpenAI, Wire]]:
    with open_wire() as wire:
        client = OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(openai.BadRequestError):
            yield client, wire


@contextmanager
def mistral_client() -> Iterator[tuple[Mistral, Wire]]:
    with (
        open_wire() as wire,
        Mistral(api_key="none", server_url=wire.url) as client,
        pytest.raises(MistralError),
    ):
        yield client, wire


def asked(wire: Wire) -> Completion:
    return parse_chat_request(wire.body).to_completion(images={PIXEL: PIXEL})


class Verdict(BaseModel):
    """An answer in a form of its own."""

    guilty: bool
    why: str | None = None


def test_openais_parse_sends_a_schema() -> None:
    with openai_client() as (client, wire):
        client.chat.completions.parse(
            model="a", messages=[{"role": "user", "content": "a"}], response_format=Verdict
        )
    answer = asked(wire).json_answer
    assert answer is not None
    assert answer.name == "Verdict"
    assert answer.schema is not None
    assert answer.schema["required"] == ["guilty", "why"]


def test_openais_tools_and_images() -> None:
    with openai_client() as (client, wire):
        client.chat.completions.create(
            model="a",
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": PIXEL}}],
                },
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "b", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "d"},
            ],
            tools=[openai.pydantic_function_tool(Verdict, name="judge")],
            tool_choice={"type": "function", "function": {"name": "judge"}},
            stream=True,
            stream_options={"include_usage": True},
        )
    assert parse_chat_request(wire.body).include_usage
    request = asked(wire)
    assert request.tool_choice == ForcedFunction("judge")
    assert request.tools[0]["function"]["strict"] is True
    assert [turn["role"] for turn in request.messages] == ["user", "assistant", "tool"]


def test_an_answer_of_openais_client_is_taken_back_as_it_is() -> None:
    message = openai.types.chat.ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "b", "arguments": ""}}
            ],
        }
    )
    body = {"model": "a", "messages": [message.model_dump()]}
    taken = parse_chat_request(json.dumps(body).encode()).to_completion(images={})
    assert taken.messages[0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_mistrals_defaults() -> None:
    with mistral_client() as (client, wire):
        client.chat.complete(model="a", messages=[mistral.UserMessage(content="a")])
    message = {"role": "user", "content": "a"}
    assert asked(wire) == Completion(model="a", messages=(message,))  # type: ignore[arg-type]


def test_everything_that_mistrals_client_spells_in_its_own_way() -> None:
    with mistral_client() as (client, wire):
        client.chat.stream(
            model="a",
            messages=list[mistral.ChatCompletionRequestMessage](
                [
                    mistral.SystemMessage(content="s"),
                    mistral.UserMessage(
                        content=[
                            mistral.TextChunk(text="b"),
                            mistral.ImageURLChunk(image_url=PIXEL),
                        ]
                    ),
                    mistral.AssistantMessage(
                        tool_calls=[
                            mistral.ToolCall(
                                id="c", function=mistral.FunctionCall(name="b", arguments={"d": 1})
                            )
                        ]
                    ),
                    mistral.ToolMessage(content="e", tool_call_id="c", name="b"),
                    mistral.AssistantMessage(content="f"),
                    mistral.UserMessage(content="g"),
                ]
            ),
            max_tokens=5,
            random_seed=7,
            stop=["z"],
            n=2,
            tools=[mistral.Tool(function=mistral.Function(name="b", parameters={}))],
            tool_choice="any",
            parallel_tool_calls=False,
            response_format={"type": "json_object"},
            prediction=mistral.Prediction(),
            safe_prompt=True,
        )
    assert parse_chat_request(wire.body).stream
    request = asked(wire)
    assert request.messages[0] == {"role": "system", "content": f"{SAFE_PROMPT}\n\ns"}
    assert request.messages[1]["content"] == [
        {"type": "text", "text": "b"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    assert request.messages[2]["tool_calls"][0]["function"]["arguments"] == '{"d":1}'
    assert (request.max_tokens, request.seed, request.stop, request.num_choices) == (
        5,
        7,
        ("z",),
        2,
    )
    assert (request.tool_choice, request.parallel_tool_calls) == ("required", False)
    assert request.json_answer == JsonAnswer()


def test_mistrals_parse_sends_a_schema() -> None:
    with mistral_client() as (client, wire):
        client.chat.parse(
            Verdict, model="a", messages=[{"role": "user", "content": "a"}], temperature=0
        )
    answer = asked(wire).json_answer
    assert answer is not None
    assert answer.name == "Verdict"
    assert answer.schema is not None
    assert answer.schema["additionalProperties"] is False
