from typing import Any

import pytest

from data.checks import MAX_CHARACTERS, RowError, check_characters, check_messages, parse_messages
from data.conversation import Message

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


def test_prompt_and_completion_become_two_turns() -> None:
    assert parse_messages({"prompt": "q", "completion": "a"}) == (USER, ASSISTANT)


@pytest.mark.parametrize(
    "turns",
    [
        [USER, ASSISTANT],
        [SYSTEM, USER, ASSISTANT],
        [USER, ASSISTANT, USER, ASSISTANT],
        [SYSTEM, USER, ASSISTANT, USER],
    ],
)
def test_sound_conversations_pass(turns: list[Message]) -> None:
    assert parse_messages({"messages": turns}) == tuple(turns)


def test_messages_win_over_prompt_and_other_keys_are_ignored() -> None:
    row = {"messages": [USER | {"name": "Ann"}, ASSISTANT], "prompt": "x", "completion": "y"}
    assert parse_messages(row) == (USER, ASSISTANT)


def test_white_space_around_a_turn_is_dropped_and_inside_kept() -> None:
    messages = parse_messages({"prompt": "\n q  1\t", "completion": "\u00a0 a\n\nb \r\n"})
    assert [turn["content"] for turn in messages] == ["q  1", "a\n\nb"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "neither `messages` nor `prompt` and `completion` (found: no keys)"),
        (
            {"question": "q", "answer": "a"},
            "neither `messages` nor `prompt` and `completion` (found: answer, question)",
        ),
        ({"prompt": "q"}, "neither `messages` nor `prompt` and `completion` (found: prompt)"),
        ({"messages": "hello"}, "`messages` is str, not a list"),
        ({"messages": None}, "`messages` is NoneType, not a list"),
        ({"messages": []}, "no assistant turn, so there is nothing to learn from it"),
        ({"messages": [USER]}, "no assistant turn, so there is nothing to learn from it"),
        ({"messages": ["hello", ASSISTANT]}, "turn 1 is str, not an object"),
        (
            {"messages": [USER, {"role": "bot", "content": "a"}]},
            "turn 2: role 'bot' is none of system, user, assistant",
        ),
        (
            {"messages": [USER, {"content": "a"}]},
            "turn 2: role None is none of system, user, assistant",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "turn 2: content is NoneType, not text",
        ),
        ({"prompt": "q", "completion": 7}, "turn 2: content is int, not text"),
        ({"messages": [ASSISTANT, USER]}, "turn 1 is assistant, expected user"),
        ({"messages": [USER, USER, ASSISTANT]}, "turn 2 is user, expected assistant"),
        ({"messages": [SYSTEM, USER, ASSISTANT, SYSTEM]}, "turn 4 is system, expected user"),
        ({"messages": [SYSTEM, SYSTEM, USER, ASSISTANT]}, "turn 2 is system, expected user"),
        ({"prompt": " \n", "completion": "a"}, "turn 1 (user) is empty"),
        ({"prompt": "q", "completion": ""}, "turn 2 (assistant) is empty"),
        (
            {"messages": [{"role": "system", "content": " "}, USER, ASSISTANT]},
            "turn 1 (system) is empty",
        ),
        ({"prompt": "q\0", "completion": "a"}, "turn 1 holds a NUL character"),
        (
            {"prompt": "q", "completion": "a \ud83d"},
            "turn 2 holds half of a surrogate pair, which is no character",
        ),
        (
            {"prompt": "q" * MAX_CHARACTERS, "completion": "a"},
            "longer than 1,000,000 characters",
        ),
    ],
)
def test_what_makes_a_row_unusable(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_messages(row)
    assert str(caught.value) == reason


def test_the_longest_row_passes() -> None:
    parse_messages({"prompt": "q" * (MAX_CHARACTERS - 1), "completion": "a"})


def test_turns_made_in_code_are_checked_by_the_same_rules() -> None:
    check_messages(({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}))
    with pytest.raises(RowError, match="no assistant turn"):
        check_messages(())


def test_characters_outside_the_basic_plane_are_characters() -> None:
    check_characters("😀 𝔘 \ufeff \u2028", "turn 1")
