"""What makes a row a conversation that can be trained on, whatever source it comes from."""

from collections.abc import Sequence

from data.conversation import Message, ToolDefinition

MAX_CHARACTERS = 1_000_000


class RowError(ValueError):
    """Why a row cannot be used; the message is the reason kept in rejects.jsonl."""


def check_messages(messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> None:
    """Raise a `RowError` unless the turns make sense: [system,] user, assistant, user, …

    An assistant's turn may call tools, and is then followed by one tool's reply for each call,
    unless the row ends before. Where the row defines tools, only those are called.
    """
    length = 0
    expected = "user"
    num_answers = 0
    waiting: dict[str, int] = {}
    for number, turn in enumerate(messages, start=1):
        role = turn["role"]
        if role == "tool":
            _check_reply(turn, number, waiting)
            expected = "assistant"
        elif role == expected and not waiting:
            if role == "user":
                expected = "assistant"
            else:
                num_answers += 1
                expected = "user"
                if turn.get("tool_calls"):
                    waiting = _check_calls(turn, number, tools)
                    length += sum(len(call["function"]["arguments"]) for call in turn["tool_calls"])
        elif waiting:
            call, made = next(iter(waiting.items()))
            raise RowError(f"turn {number} is {role}, but the call {call!r} of turn {made} waits")
        elif role != "system" or number > 1:
            raise RowError(f"turn {number} is {role}, expected {expected}")
        length += _check_content(turn, number)
    if not num_answers:
        raise RowError("no assistant turn, so there is nothing to learn from it")
    if length > MAX_CHARACTERS:
        raise RowError(f"longer than {MAX_CHARACTERS:,} characters")


def check_rejected(rejected: Message, preferred: Message) -> None:
    """Raise a `RowError` unless `rejected` is an answer, and another one than `preferred`."""
    if rejected["role"] != "assistant":
        raise RowError(f"the rejected turn is {rejected['role']}, expected assistant")
    if rejected == preferred:
        raise RowError("the preferred and the rejected answer are the same")
    content = rejected["content"]
    if not content and not rejected.get("tool_calls"):
        raise RowError("the rejected answer is empty")
    for text in _texts(rejected):
        check_characters(text, "the rejected answer")
    if sum(map(len, _texts(rejected))) > MAX_CHARACTERS:
        raise RowError(f"the rejected answer is longer than {MAX_CHARACTERS:,} characters")


def check_characters(text: str, name: str) -> None:
    """Raise a `RowError` where `text`, told as `name`, holds what no tokenizer or file takes."""
    if "\0" in text:
        raise RowError(f"{name} holds a NUL character")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{name} holds half of a surrogate pair, which is no character") from error


def _check_content(turn: Message, number: int) -> int:
    """The number of characters of a turn's text, which must not be empty, nor hold what is none."""
    content = turn["content"]
    if not content and not turn.get("tool_calls") and turn["role"] != "tool":
        raise RowError(f"turn {number} ({turn['role']}) is empty")
    if isinstance(content, str):
        check_characters(content, f"turn {number}")
        return len(content)
    for text in _texts(turn):
        check_characters(text, f"turn {number}")
    return sum(map(len, _texts(turn)))


def _texts(turn: Message) -> list[str]:
    content = turn["content"]
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part["type"] == "text"]


def _check_reply(turn: Message, number: int, waiting: dict[str, int]) -> None:
    """Take the call that a tool's turn answers off `waiting`."""
    call = turn.get("tool_call_id", "")
    if call not in waiting:
        raise RowError(f"turn {number} answers the call {call!r}, which was not made just before")
    del waiting[call]


def _check_calls(turn: Message, number: int, tools: Sequence[ToolDefinition]) -> dict[str, int]:
    """The ids of the calls that a turn makes, each with the turn's number."""
    calls: dict[str, int] = {}
    for call in turn["tool_calls"]:
        id, name = call["id"], call["function"]["name"]
        if id in calls:
            raise RowError(f"turn {number} makes two calls with the id {id!r}")
        if tools and all(tool["function"]["name"] != name for tool in tools):
            raise RowError(f"turn {number} calls {name!r}, which is not among the row's tools")
        for text in (id, name, call["function"]["arguments"]):
            check_characters(text, f"a call of turn {number}")
        calls[id] = number
    return calls
