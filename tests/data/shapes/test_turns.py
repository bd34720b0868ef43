"""OpenAI's chat form: plain turns, tools, images."""

import base64
import json
from typing import Any

import pytest

from data.checks import RowError
from data.shapes.turns import parse_tools, parse_turns
from tests.data.shapes.conftest import Convert

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Now.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}


def image(url: object, **more: object) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": url, **more}]}


def call(**function: object) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", **function}]}


def called(arguments: object) -> dict[str, Any]:
    return call(type="function", function={"name": "weather", "arguments": arguments})


def test_turns_keep_role_and_text_and_nothing_else(convert: Convert) -> None:
    turns = [{**USER, "name": "Ann", "weight": 1}, {**ASSISTANT, "tool_calls": None}]
    assert convert({"messages": turns}, kind="messages").messages == (USER, ASSISTANT)


def test_white_space_around_a_turn_is_dropped_and_inside_kept() -> None:
    turns = parse_turns(
        [{**USER, "content": "\n q  1\t"}, {**ASSISTANT, "content": "\u00a0a\n\nb \r\n"}]
    )
    assert [turn["content"] for turn in turns] == ["q  1", "a\n\nb"]


def test_a_developer_is_the_system() -> None:
    assert parse_turns([{"role": "developer", "content": "s"}])[0]["role"] == "system"


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": " one "}, {"type": "text", "text": "two "}]
    assert parse_turns([{"role": "user", "content": parts}])[0]["content"] == "one two"


def test_embedded_images_stay_between_the_texts() -> None:
    parts = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": PNG},
    ]
    assert parse_turns([{"role": "user", "content": parts}])[0]["content"] == [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": PNG}},
    ]


@pytest.mark.parametrize(
    "arguments", ['{"town": "Ulm"}', {"town": "Ulm"}], ids=["JSON text", "object"]
)
def test_calls_and_replies(arguments: object, convert: Convert) -> None:
    reply = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sun"}]}
    row = {"messages": [USER, called(arguments), reply, ASSISTANT], "tools": [WEATHER]}
    turns = convert(row, kind="messages")
    assert turns.tools == (WEATHER,)
    assert turns.messages[1]["content"] == ""
    (made,) = turns.messages[1]["tool_calls"]
    assert (made["id"], made["function"]["name"]) == ("c1", "weather")
    assert json.loads(made["function"]["arguments"]) == {"town": "Ulm"}
    assert turns.messages[2] == {"role": "tool", "content": "sun", "tool_call_id": "c1"}


def test_arguments_as_text_stay_as_they_are_written() -> None:
    made = parse_turns([called('{ "town":  "Ulm" }')])[0]["tool_calls"][0]
    assert made["function"]["arguments"] == '{ "town":  "Ulm" }'


def test_calls_without_ids_are_answered_in_their_order() -> None:
    two = [{"name": "weather", "arguments": {}}, {"name": "news", "arguments": None}]
    reply = {"role": "tool", "content": "x"}
    turns = parse_turns([USER, {"role": "assistant", "tool_calls": two}, reply, reply])
    ids = [made["id"] for made in turns[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [turn["tool_call_id"] for turn in turns[2:]] == ids
    assert turns[1]["tool_calls"][1]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("hello", "turn 1 is text, not an object"),
        ({"content": "a"}, "turn 1: role None is none of system, user, assistant, tool, developer"),
        ({"role": ["user"], "content": "a"}, "turn 1: role ['user'] is none of"),
        ({"role": "user"}, "turn 1: content is null, not text"),
        ({"role": "assistant", "content": 7}, "turn 1: content is a number, not text"),
        ({"role": "user", "content": {"text": "q"}}, "turn 1: content is an object, not text"),
        ({"role": "user", "content": ["q"]}, "turn 1: part 1 is text, not an object"),
        (
            {"role": "user", "content": [{"type": "audio"}]},
            "turn 1: part 1 is of type 'audio'; `text` and `image_url` are read",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "turn 1: text of part 1 is null"),
        (image({}), "turn 1: an image without a `url`"),
        (
            image({"url": "https://example.org/cat.png"}),
            "turn 1: the image 'https://example.org/cat.png' is not within the row: give a "
            "`data:image/…;base64,` URL, nothing is fetched",
        ),
        (image("data:image/png;base64,a*b"), "turn 1: an image is not valid base64"),
        (image("data:image/png;base64,"), "turn 1: an image holds no data"),
        (
            {**image(PNG), "role": "assistant"},
            "turn 1: an image in a turn of the assistant; only users show images",
        ),
        ({"role": "tool", "content": "x"}, "turn 1 is a tool's reply, but no call waits for one"),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f"}},
            "turn 1: `function_call` is an old form, give `tool_calls`",
        ),
        ({"role": "assistant", "tool_calls": {}, "content": None}, "turn 1: content is null"),
        (
            {"role": "assistant", "tool_calls": {"id": "1"}},
            "turn 1: `tool_calls` is an object, not a list",
        ),
        ({"role": "assistant", "tool_calls": ["f"]}, "turn 1: call 1 is text, not an object"),
        (call(function={"arguments": "{}"}), "turn 1: call 1 names no function"),
        (called("{"), "turn 1: call 1: `arguments` is not JSON: unexpected end of data"),
        (called("[1]"), "turn 1: call 1: `arguments` are not JSON text of an object"),
        (called([1]), "turn 1: call 1: `arguments` is a list, not an object"),
        (called({"n": 1 << 70}), "turn 1: call 1: `arguments` cannot be written as JSON"),
    ],
)
def test_what_makes_a_turn_unusable(turn: object, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_turns([turn])
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("value", [None, "", [], "[]"])
def test_no_tools(value: object) -> None:
    assert parse_tools(value) == ()


@pytest.mark.parametrize("value", [[WEATHER], json.dumps([WEATHER]), [WEATHER["function"]]])
def test_tools_in_their_forms(value: object) -> None:
    assert parse_tools(value) == (WEATHER,)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ("{", "`tools` is not JSON"),
        ({}, "`tools` is an object, not a list"),
        (["f"], "tool 1 is text, not an object with a `function`"),
        ([{"function": {}}], "tool 1 has no name"),
        ([WEATHER, WEATHER], "two tools have the name 'weather'"),
        ([{"name": "f", "parameters": [1]}], "tool 'f': `parameters` is a list, not an object"),
        ([{"name": "f", "parameters": "{"}], "tool 'f': `parameters` is not JSON"),
        ([{"name": "f", "description": 1}], "tool 'f': `description` is not text"),
        ([{"name": "f", "parameters": nested(500)}], "`tools` cannot be written as JSON"),
    ],
)
def test_what_makes_tools_unusable(tools: object, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_tools(tools)
    assert str(caught.value).startswith(reason)


def test_a_call_of_a_tool_that_is_not_there_is_refused(convert: Convert) -> None:
    row = {"messages": [USER, call(function={"name": "news"})], "tools": [WEATHER]}
    with pytest.raises(RowError, match="calls 'news', which is not among the row's tools"):
        convert(row, kind="messages")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no column `messages` (the columns are: none)"),
        ({"prompt": "q", "\ud83d": 1}, "no column `messages` (the columns are: prompt, \\ud83d)"),
        ({"messages": "hello"}, "`messages` is not JSON: "),
        ({"messages": None}, "`messages` is null, not a list"),
        ({"messages": {"role": "user"}}, "`messages` is an object, not a list"),
        ({"messages": []}, "no assistant turn"),
    ],
)
def test_what_makes_a_column_of_turns_unusable(
    row: dict[str, Any], reason: str, convert: Convert
) -> None:
    with pytest.raises(RowError) as caught:
        convert(row, kind="messages")
    assert str(caught.value).startswith(reason)


def test_turns_may_be_json_text(convert: Convert) -> None:
    row = {"chat": json.dumps([USER, ASSISTANT])}
    assert convert(row, kind="messages", column="chat").messages == (USER, ASSISTANT)
