import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.conversation import Message, ToolCall, ToolDefinition
from data.tokens.mistral_call_ids import CALL_ID
from serve.engine import (
    Completion,
    EngineError,
    EngineUnavailable,
    ForcedFunction,
    JsonAnswer,
    RequestRefused,
)
from tests.serve.engines.asking import Answers, answers, assistant, request, user
from tests.serve.engines.tool_llama import CALLING, build_tool_gguf

LOOK: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks it up.",
        "parameters": {
            "type": "object",
            "properties": {
                "q": {"type": "string", "maxLength": 9},
                "n": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["q"],
        },
    },
}
STOP: ToolDefinition = {"type": "function", "function": {"name": "stop"}}
NUM_SEEDS = 8
CALL: ToolCall = {
    "id": "a",
    "type": "function",
    "function": {"name": "look", "arguments": '{"q": "river"}'},
}
REPLIED: tuple[Message, ...] = (
    user("river"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "stone"},
)


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says something, then calls."""
    return build_tool_gguf(tmp_path_factory.mktemp("calling"))


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Would say nothing but the token that begins a call."""
    return build_tool_gguf(tmp_path_factory.mktemp("eager"), CALLING | {"[TOOL_CALLS]": 30.0})


def asked(*messages: Message, **fields: Any) -> Completion:  # noqa: ANN401 (any field)
    given = {"tools": (LOOK, STOP), "max_tokens": 250, "temperature": 1.0} | fields
    return request(*(messages or (user("river"),)), **given)


def drawn(model: Path, one: Completion) -> list[Answers]:
    return answers(
        model, *(replace(one, seed=seed) for seed in range(NUM_SEEDS)), context_length=1024
    )


def check_calls(given: Answers) -> None:
    choice = given.choices[0]
    for call in choice.calls:
        assert CALL_ID.fullmatch(call.id), "the form that Mistral's template takes"
    assert len({call.id for call in choice.calls}) == len(choice.calls)
    if choice.reason == "tool_calls":
        assert choice.calls
        for call in choice.calls:
            arguments = json.loads(call.arguments)
            if call.name == "look":
                assert len(arguments["q"]) <= 9
            else:
                assert (call.name, arguments) == ("stop", {})


def test_calls_come_whole_with_the_text_before_them(calling: Path) -> None:
    given = drawn(calling, asked())
    for one in given:
        check_calls(one)
        assert "[TOOL_CALLS]" not in one.choices[0].text
    ended = [one.choices[0] for one in given if one.choices[0].reason == "tool_calls"]
    assert ended
    assert any(choice.text for choice in ended)
    assert {call.name for choice in ended for call in choice.calls} == {"look", "stop"}


def test_a_call_is_required_by_request(calling: Path) -> None:
    for one in drawn(calling, asked(tool_choice="required")):
        check_calls(one)
        assert one.choices[0].reason in ("tool_calls", "length")


def test_a_function_is_forced_by_request(calling: Path) -> None:
    given = drawn(calling, asked(tool_choice=ForcedFunction("look")))
    calls = [call for one in given for call in one.choices[0].calls]
    assert calls
    assert {call.name for call in calls} == {"look"}
    with pytest.raises(RequestRefused) as error:
        answers(calling, asked(tool_choice=ForcedFunction("nothing")))
    assert error.value.field == "tool_choice"


def test_calls_one_at_a_time_by_request(calling: Path) -> None:
    several = drawn(calling, asked())
    assert max(len(one.choices[0].calls) for one in several) > 1
    one_each = drawn(calling, asked(parallel_tool_calls=False))
    assert max(len(one.choices[0].calls) for one in one_each) == 1


def test_no_call_by_request_though_the_model_would(eager: Path) -> None:
    [would, must_not] = answers(eager, asked(), asked(tool_choice="none"), context_length=1024)
    assert would.choices[0].calls
    assert not must_not.choices[0].calls
    assert must_not.choices[0].text
    assert "[TOOL_CALLS]" not in must_not.choices[0].text
    assert must_not.usage.prompt_tokens == would.usage.prompt_tokens, "it is told of them"


def test_a_call_that_is_cut_says_so(eager: Path) -> None:
    given_all = answers(
        eager, *(asked(max_tokens=num, seed=1) for num in range(1, 40)), context_length=1024
    )
    for num_tokens, given in enumerate(given_all, 1):
        assert given.choices[0].reason == "length"
        assert given.usage.completion_tokens == num_tokens


def test_a_stop_string_ends_the_text_and_leaves_calls_whole(calling: Path) -> None:
    whole = drawn(calling, asked())
    text = next(one.choices[0].text for one in whole if len(one.choices[0].text) > 9)
    cut = drawn(calling, asked(stop=(text[5:8],)))
    expected = text[: text.index(text[5:8])]
    assert expected in [one.choices[0].text for one in cut]
    # Within the arguments of a call it is nothing special.
    quoted = drawn(calling, asked(stop=('"q"',)))
    assert [one.choices[0].calls for one in quoted] == [one.choices[0].calls for one in whole]
    # An end that could still grow into one goes out before the call.
    last = {one.choices[0].text[-1:] for one in whole} - {""}
    held = drawn(calling, asked(stop=tuple(letter + "…" for letter in last)))
    assert [one.choices for one in held] == [one.choices for one in whole]


def test_greedy_answers_with_tools_depend_on_the_request_alone(calling: Path) -> None:
    """The ids of calls among them, which are in the prompt of the next request."""
    turns: list[tuple[Message, ...]] = [
        (user("river"),),
        (user("river"), assistant("stone"), user("at")),
        (user("river"), assistant("stone"), user("market")),
        (user("at"), user("market")),
        ({"role": "system", "content": "the river"}, user("stone")),
        REPLIED,
    ]
    requests = [
        asked(*messages, temperature=0, max_tokens=60, tools=tools)
        for messages in turns
        for tools in ((), (LOOK,), (LOOK, STOP))
    ] + [asked(seed=3)]
    alone = [answers(calling, one, context_length=1024)[0] for one in requests]
    order = [*range(len(requests))] * 3
    random.Random(1).shuffle(order)
    given = answers(calling, *(requests[n] for n in order), context_length=1024)
    assert given == [alone[n] for n in order]
    assert alone[-1].choices[0].calls


def test_turns_that_are_held_are_those_with_the_same_tools(calling: Path) -> None:
    """Tools stand within them, where the last turn is a tool's."""
    requests = [
        asked(*REPLIED, temperature=0, max_tokens=30, tools=(described("a" * num),))
        for num in range(66)
    ]
    forgetting = asked(max_tokens=1, tools=())
    apart = [one for each in requests for one in (forgetting, each)]
    # Some differ from the one before them by a single token, which rounds otherwise.
    given = answers(calling, *requests, *apart, context_length=1024)
    assert given[: len(requests)] == given[len(requests) + 1 :: 2]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"top_logprobs": 1}, "logprobs"),
        ({"json_answer": JsonAnswer()}, "response_format"),
    ],
)
def test_what_cannot_go_with_tools_is_refused(
    calling: Path, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestRefused) as error:
        answers(calling, asked(**fields))
    assert error.value.field == field


def test_json_goes_with_tools_that_may_not_be_called(calling: Path) -> None:
    [given] = answers(
        calling, asked(json_answer=JsonAnswer(), tool_choice="none"), context_length=1024
    )
    assert given.choices[0].text.startswith("{")


def test_parameters_that_llama_cpp_itself_refuses_name_the_tools(calling: Path) -> None:
    tool = replace_parameters({"type": "object", "properties": {"q": {"$ref": "#/nowhere"}}})
    with pytest.raises(RequestRefused, match="cannot resolve") as error:
        answers(calling, asked(tools=(tool,)))
    assert error.value.field == "tools"


def test_a_call_that_cannot_be_read_is_an_error_of_the_engine(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its grammar lets a backslash before a space into ids, which its own reader does not take."""
    escaping = CALLING | {"\\": 5.0, "Ġ": 5.0}
    file = build_tool_gguf(tmp_path_factory.mktemp("escaping"), escaping)
    with pytest.raises(EngineError, match="does not match") as error:
        drawn(file, asked(tools=(STOP,)))
    assert not isinstance(error.value, EngineUnavailable)


def described(description: str) -> ToolDefinition:
    return LOOK | {"function": LOOK["function"] | {"description": description}}


def replace_parameters(parameters: dict[str, Any]) -> ToolDefinition:
    return LOOK | {"function": LOOK["function"] | {"parameters": parameters}}
