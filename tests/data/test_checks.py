import json
from typing import Any

import pytest

from data.checks import (
    MAX_CHARACTERS,
    RowError,
    check_characters,
    check_messages,
    check_rejected,
)
from data.conversation import Message, ToolCall, ToolDefinition

USER: Message = {"role": "user", "content": "q"}
ASSISTANT: Message = {"role": "assistant", "content": "a"}
SYSTEM: Message = {"role": "system", "content": "s"}
WEATHER: ToolDefinition = {"type": "function", "function": {"name": "weather"}}
IMAGE: Message = {
    "role": "user",
    "content": [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
    ],
}


def call(id: str, name: str = "weather", **arguments: object) -> ToolCall:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": id, "type": "function", "function": function}  # type: ignore[typeddict-item]


def calls(*made: ToolCall, content: str = "") -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def reply(id: str, content: str = "sunny") -> Message:
    return {"role": "tool", "content": content, "tool_call_id": id}


def turn(role: Any, content: str) -> Message:  # noqa: ANN401
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "turns",
    [
        [USER, ASSISTANT],
        [SYSTEM, USER, ASSISTANT],
        [USER, ASSISTANT, USER, ASSISTANT],
        [SYSTEM, USER, ASSISTANT, USER],
        [IMAGE, ASSISTANT],
        [USER, calls(call("1")), reply("1"), ASSISTANT],
        [USER, calls(call("1"), call("2")), reply("2"), reply("1"), ASSISTANT, USER, ASSISTANT],
        [USER, calls(call("1")), reply("1"), calls(call("1")), reply("1"), ASSISTANT],
        # The row may end with a call, or before all replies are there.
        [USER, calls(call("1"))],
        [USER, calls(call("1"), call("2")), reply("1")],
        [USER, calls(call("1"), content="let me see"), reply("1", ""), ASSISTANT],
    ],
)
def test_sound_conversations_pass(turns: list[Message]) -> None:
    check_messages(turns, (WEATHER,))
    check_messages(turns)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no assistant turn, so there is nothing to learn from it"),
        ([USER], "no assistant turn, so there is nothing to learn from it"),
        ([SYSTEM, USER], "no assistant turn, so there is nothing to learn from it"),
        ([ASSISTANT, USER], "turn 1 is assistant, expected user"),
        ([USER, USER, ASSISTANT], "turn 2 is user, expected assistant"),
        ([USER, ASSISTANT, ASSISTANT], "turn 3 is assistant, expected user"),
        ([SYSTEM, USER, ASSISTANT, SYSTEM], "turn 4 is system, expected user"),
        ([SYSTEM, SYSTEM, USER, ASSISTANT], "turn 2 is system, expected user"),
        ([SYSTEM, ASSISTANT], "turn 2 is assistant, expected user"),
        ([turn("user", ""), ASSISTANT], "turn 1 (user) is empty"),
        ([USER, turn("assistant", "")], "turn 2 (assistant) is empty"),
        ([turn("system", ""), USER, ASSISTANT], "turn 1 (system) is empty"),
        ([{"role": "user", "content": []}, ASSISTANT], "turn 1 (user) is empty"),
        ([turn("user", "q\0"), ASSISTANT], "turn 1 holds a NUL character"),
        (
            [USER, turn("assistant", "a \ud83d")],
            "turn 2 holds half of a surrogate pair, which is no character",
        ),
        ([turn("user", "q" * MAX_CHARACTERS), ASSISTANT], "longer than 1,000,000 characters"),
        (
            [USER, calls(call("1")), ASSISTANT],
            "turn 3 is assistant, but the call '1' of turn 2 waits",
        ),
        (
            [USER, calls(call("1"), call("2")), reply("1"), USER],
            "turn 4 is user, but the call '2' of turn 2 waits",
        ),
        (
            [USER, calls(call("1")), reply("2"), ASSISTANT],
            "turn 3 answers the call '2', which was not made just before",
        ),
        (
            [USER, calls(call("1")), reply("1"), reply("1"), ASSISTANT],
            "turn 4 answers the call '1', which was not made just before",
        ),
        (
            [USER, ASSISTANT, reply("1")],
            "turn 3 answers the call '1', which was not made just before",
        ),
        (
            [USER, calls(call("1")), reply("1"), ASSISTANT, USER, reply("1")],
            "turn 6 answers the call '1', which was not made just before",
        ),
        (
            [USER, calls(call("1")), reply("1"), USER, ASSISTANT],
            "turn 4 is user, expected assistant",
        ),
        ([USER, calls(call("1"), call("1"))], "turn 2 makes two calls with the id '1'"),
        (
            [USER, calls(call("1", name="news"))],
            "turn 2 calls 'news', which is not among the row's tools",
        ),
        (
            [USER, calls(call("1", town="x" * MAX_CHARACTERS))],
            "longer than 1,000,000 characters",
        ),
        ([USER, calls(call("1", "weather\0"))], "a call of turn 2 holds a NUL character"),
    ],
)
def test_what_makes_turns_unusable(turns: list[Message], reason: str) -> None:
    tools = () if "\0" in str(reason) or "NUL" in reason else (WEATHER,)
    with pytest.raises(RowError) as caught:
        check_messages(turns, tools)
    assert str(caught.value) == reason


def test_calls_are_free_where_the_row_defines_no_tools() -> None:
    check_messages([USER, calls(call("1", name="news"))])


def test_the_longest_row_passes() -> None:
    check_messages([turn("user", "q" * (MAX_CHARACTERS - 1)), ASSISTANT])


def test_embedded_images_do_not_count_as_characters() -> None:
    url = "data:image/png;base64," + "QUJD" * MAX_CHARACTERS
    content = [{"type": "image_url", "image_url": {"url": url}}]
    check_messages([{"role": "user", "content": content}, ASSISTANT])  # type: ignore[typeddict-item]


def test_characters_outside_the_basic_plane_are_characters() -> None:
    check_characters("😀 𝔘 \ufeff \u2028", "turn 1")


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        (ASSISTANT, "the preferred and the rejected answer are the same"),
        (USER, "the rejected turn is user, expected assistant"),
        (turn("assistant", ""), "the rejected answer is empty"),
        (turn("assistant", "\0"), "the rejected answer holds a NUL character"),
        (
            turn("assistant", "b" * (MAX_CHARACTERS + 1)),
            "the rejected answer is longer than 1,000,000 characters",
        ),
    ],
)
def test_what_makes_a_rejected_answer_unusable(rejected: Message, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        check_rejected(rejected, ASSISTANT)
    assert str(caught.value) == reason


def test_another_answer_and_a_call_can_be_rejected() -> None:
    check_rejected(turn("assistant", "b"), ASSISTANT)
    check_rejected(calls(call("1")), ASSISTANT)
