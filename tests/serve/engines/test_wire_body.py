from typing import Any

import orjson
import pytest

from data.conversation import Message, ToolDefinition
from serve.engine import Completion, ForcedFunction, JsonAnswer, RequestRefused
from serve.engines.wire_body import Dialect, build_body

USER: Message = {"role": "user", "content": "hi"}
TOOL: ToolDefinition = {"type": "function", "function": {"name": "find", "parameters": {}}}


def body(*, dialect: Dialect = "openai", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """As it goes over the wire, without what every request has."""
    given: dict[str, Any] = {"model": "m", "messages": (USER,)} | fields
    sent = orjson.loads(orjson.dumps(build_body(Completion(**given), dialect=dialect)))
    assert sent.pop("stream") is True
    assert sent.pop("model") == "m"
    if dialect == "openai":
        assert sent.pop("stream_options") == {"include_usage": True}
    if "messages" not in fields:
        assert sent.pop("messages") == [USER]
    if "temperature" not in fields:
        assert sent.pop("temperature") == 0.7
    assert isinstance(sent, dict)
    return sent


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_nothing_is_sent_that_was_not_asked_for(dialect: Dialect) -> None:
    assert body(dialect=dialect) == {}


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_what_was_asked_for_is_sent(dialect: Dialect) -> None:
    fields: dict[str, Any] = {
        "max_tokens": 7,
        "temperature": 0.2,
        "top_p": 0.5,
        "frequency_penalty": -0.5,
        "presence_penalty": 0.5,
    }
    sent = fields | {"stop": ["a", "b"], "n": 2}
    assert body(dialect=dialect, stop=("a", "b"), num_choices=2, **fields) == sent


def test_seeds_of_each_dialect() -> None:
    assert body(seed=0) == {"seed": 0}
    assert body(seed=-5) == {"seed": -5}
    assert 0 <= body(seed=2**64 + 3)["seed"] < 2**63
    assert body(seed=7, dialect="mistral") == {"random_seed": 7}
    assert 0 <= body(seed=-7, dialect="mistral")["random_seed"] < 2**31


def test_top_p_has_no_effect_on_greedy_answers() -> None:
    assert body(temperature=0, top_p=0.5) == {"temperature": 0}


def test_logprobs_are_asked_for_or_refused() -> None:
    assert body(top_logprobs=0) == {"logprobs": True, "top_logprobs": 0}
    with pytest.raises(RequestRefused) as caught:
        body(top_logprobs=2, dialect="mistral")
    assert caught.value.field == "logprobs"


def test_tools_and_the_choice_among_them() -> None:
    assert body(tools=(TOOL,)) == {"tools": [TOOL]}
    assert body(tools=(TOOL,), tool_choice="required")["tool_choice"] == "required"
    assert body(tools=(TOOL,), parallel_tool_calls=False)["parallel_tool_calls"] is False
    named = {"type": "function", "function": {"name": "find"}}
    assert body(tools=(TOOL,), tool_choice=ForcedFunction("find"))["tool_choice"] == named
    assert body(tool_choice="required", parallel_tool_calls=False) == {}


def test_forms_of_answers() -> None:
    assert body(json_answer=JsonAnswer()) == {"response_format": {"type": "json_object"}}
    schema = {"type": "object"}
    told = body(json_answer=JsonAnswer(schema=schema, name="place"))["response_format"]
    assert told == {
        "type": "json_schema",
        "json_schema": {"name": "place", "schema": schema, "strict": True},
    }
    described = JsonAnswer(schema=schema, description="a place")
    told = body(json_answer=described)["response_format"]
    assert told["json_schema"]["description"] == "a place"


def test_mistral_gets_ids_that_it_takes_and_others_their_own() -> None:
    call = {"id": "call_123", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = (
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "call_123"},
    )
    assert body(messages=messages)["messages"] == list(messages)
    user, asking, told = body(messages=messages, dialect="mistral")["messages"]
    assert user == USER
    id = asking["tool_calls"][0]["id"]
    assert len(id) == 9
    assert id.isalnum()
    assert told["tool_call_id"] == id
    assert asking["tool_calls"][0]["function"] == call["function"]
    assert call["id"] == "call_123", "what was given stays as it was"
