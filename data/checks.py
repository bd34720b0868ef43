"""What makes a row a conversation that can be trained on."""

from collections.abc import Mapping
from typing import Any

from data.conversation import ROLES, Message

MAX_CHARACTERS = 1_000_000


class RowError(ValueError):
    """Why a row cannot be used; the message is the reason kept in rejects.jsonl."""


def parse_messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns of a row that holds `messages`, or `prompt` and `completion`; else a `RowError`.

    White space around a turn is dropped: a leading blank in an answer would merge with the
    template's own line break into a token that is not the one met when the model answers.
    """
    if "messages" in row:
        turns = row["messages"]
        if not isinstance(turns, list):
            raise RowError(f"`messages` is {type(turns).__name__}, not a list")
    elif "prompt" in row and "completion" in row:
        turns = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
    else:
        keys = ", ".join(sorted(row)[:8])[:200] or "no keys"
        # A key may hold what no file takes.
        told = keys.encode(errors="backslashreplace").decode()
        raise RowError(f"neither `messages` nor `prompt` and `completion` (found: {told})")
    messages = tuple(_parse_turn(turn, number) for number, turn in enumerate(turns, start=1))
    check_messages(messages)
    return messages


def check_messages(messages: tuple[Message, ...]) -> None:
    """Raise a `RowError` unless the turns make sense: [system,] user, assistant, user, …"""
    dialogue = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not any(turn["role"] == "assistant" for turn in dialogue):
        raise RowError("no assistant turn, so there is nothing to learn from it")
    for number, turn in enumerate(dialogue):
        expected = "user" if number % 2 == 0 else "assistant"
        if turn["role"] != expected:
            raise RowError(
                f"turn {number + 1 + len(messages) - len(dialogue)} is {turn['role']}, "
                f"expected {expected}"
            )
    for number, turn in enumerate(messages, start=1):
        if not turn["content"]:
            raise RowError(f"turn {number} ({turn['role']}) is empty")
    if sum(len(turn["content"]) for turn in messages) > MAX_CHARACTERS:
        raise RowError(f"longer than {MAX_CHARACTERS:,} characters")


def check_characters(text: str, name: str) -> None:
    """Raise a `RowError` where `text`, told as `name`, holds what no tokenizer or file takes."""
    if "\0" in text:
        raise RowError(f"{name} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{name} holds half of a surrogate pair, which is no character") from error


def _parse_turn(turn: object, number: int) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is {type(turn).__name__}, not an object")
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        raise RowError(f"turn {number}: role {role!r} is none of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"turn {number}: content is {type(content).__name__}, not text")
    check_characters(content, f"turn {number}")
    return {"role": role, "content": content.strip()}
