"""ShareGPT, Alpaca, prompt and completion, preference pairs."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from data.checks import RowError
from tests.data.shapes.conftest import Convert

Texts = Callable[..., list[tuple[str, str]]]
USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}


def said(speaker: str, value: object) -> dict[str, Any]:
    return {"from": speaker, "value": value}


@pytest.mark.parametrize("pair", [("human", "gpt"), ("user", "assistant"), ("human", "chatgpt")])
def test_sharegpt_speakers(pair: tuple[str, str], texts: Texts) -> None:
    row = {"conversations": [said("system", "s"), said(pair[0], " q "), said(pair[1], "a")]}
    expected = [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert texts(row, kind="sharegpt") == expected


def test_sharegpt_calls_and_observations(convert: Convert) -> None:
    made = {"name": "weather", "arguments": {"town": "Ulm"}}
    row = {
        "conversations": [
            said("human", "q"),
            said("function_call", json.dumps(made)),
            said("observation", "sun"),
            said("gpt", "a"),
        ],
        "tools": json.dumps([{"name": "weather"}]),
        "system": "s",
    }
    turns = convert(row, kind="sharegpt")
    roles = [turn["role"] for turn in turns.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert turns.messages[2]["tool_calls"][0]["function"]["arguments"] == '{"town":"Ulm"}'
    assert turns.messages[3]["tool_call_id"] == turns.messages[2]["tool_calls"][0]["id"]
    assert [tool["function"]["name"] for tool in turns.tools] == ["weather"]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["q"], "turn 1 is text, not an object"),
        ([said("owl", "q")], "turn 1: `from` 'owl' is none of system, human, user, gpt"),
        ([{"role": "user", "content": "q"}], "turn 1: `from` None is none of system"),
        ([said("human", None), said("gpt", "a")], "turn 1: content is null, not text"),
        ([said("gpt", "a")], "turn 1 is assistant, expected user"),
        ([said("human", "q"), said("function_call", "{")], "turn 2: the call is not JSON"),
        ([said("human", "q"), said("gpt", "a"), said("observation", "x")], "turn 3 is a tool's"),
    ],
)
def test_what_makes_a_sharegpt_row_unusable(
    turns: list[Any], reason: str, convert: Convert
) -> None:
    with pytest.raises(RowError) as caught:
        convert({"conversations": turns}, kind="sharegpt")
    assert str(caught.value).startswith(reason)


def test_alpaca_with_and_without_input(texts: Texts) -> None:
    row: dict[str, Any] = {"instruction": "Sum up.", "input": "", "output": "So."}
    assert texts(row, kind="alpaca") == [("user", "Sum up."), ("assistant", "So.")]
    row |= {"input": "A text.", "system": "s", "history": [["q0", "a0"]]}
    assert texts(row, kind="alpaca") == [
        ("system", "s"),
        ("user", "q0"),
        ("assistant", "a0"),
        ("user", "Sum up.\n\nA text."),
        ("assistant", "So."),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "q"}, "no column `output` (the columns are: instruction)"),
        ({"instruction": " ", "output": "a"}, "`instruction` is empty"),
        ({"instruction": "q", "output": None}, "`output` is empty"),
        ({"instruction": "q", "output": ["a"]}, "`output` is a list, not text"),
        ({"instruction": "q", "output": "a", "input": 7}, "`input` is a number, not text"),
        ({"instruction": "q", "output": "a", "history": ["x"]}, "`history` 1 is not a pair"),
    ],
)
def test_what_makes_an_alpaca_row_unusable(
    row: dict[str, Any], reason: str, convert: Convert
) -> None:
    with pytest.raises(RowError) as caught:
        convert(row, kind="alpaca")
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("prompt", ["q", [USER]])
@pytest.mark.parametrize("completion", ["good", [GOOD]])
def test_prompt_and_completion_as_texts_or_turns(
    prompt: object, completion: object, texts: Texts
) -> None:
    row = {"ask": prompt, "say": completion}
    found = texts(row, kind="prompt_completion", prompt="ask", completion="say")
    assert found == [("user", "q"), ("assistant", "good")]


def test_a_prompt_of_several_turns(texts: Texts) -> None:
    row = {"prompt": [USER, GOOD, {"role": "user", "content": "and?"}], "completion": [BAD]}
    roles = [role for role, _ in texts(row, kind="prompt_completion")]
    assert roles == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q"}, "no column `completion` (the columns are: prompt)"),
        ({"prompt": "q", "completion": " "}, "`completion` is empty"),
        ({"prompt": None, "completion": "a"}, "`prompt` is empty"),
        ({"prompt": 7, "completion": "a"}, "`prompt` is a number, not a list"),
        ({"prompt": "q", "completion": [USER]}, "`completion` does not begin with the assistant's"),
        ({"prompt": "q", "completion": ["a"]}, "turn 1 of `completion` is text, not an object"),
    ],
)
def test_what_makes_a_prompt_and_completion_unusable(
    row: dict[str, Any], reason: str, convert: Convert
) -> None:
    with pytest.raises(RowError) as caught:
        convert(row, kind="prompt_completion")
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
    ids=["texts", "turns", "whole conversations", "prompt told twice"],
)
def test_preference_pairs(row: dict[str, Any], convert: Convert) -> None:
    shape = {"kind": "preference", "prompt": "prompt" if "prompt" in row else None}
    turns = convert(row, **shape)
    assert (turns.messages, turns.rejected) == ((USER, GOOD), BAD)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "good"}, "no column `rejected`"),
        ({"prompt": "q", "chosen": None, "rejected": "bad"}, "`chosen` is empty"),
        ({"chosen": "good", "rejected": "bad"}, "no column `prompt`"),
        (
            {"prompt": "q", "chosen": [USER, GOOD], "rejected": [BAD, USER, BAD]},
            "the two answers do not follow the same turns",
        ),
    ],
)
def test_what_makes_a_pair_unusable(row: dict[str, Any], reason: str, convert: Convert) -> None:
    with pytest.raises(RowError) as caught:
        convert(row, kind="preference")
    assert str(caught.value).startswith(reason)


def test_answers_alone_need_a_prompt(convert: Convert) -> None:
    with pytest.raises(RowError, match="`chosen` holds an answer alone, without a question"):
        convert({"chosen": "good", "rejected": "bad"}, kind="preference", prompt=None)
