"""Values of a row's columns as text, and what to say where they are none."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from data.checks import RowError
from data.conversation import Message, ToolDefinition

Row = Mapping[str, Any]

KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
MAX_TOLD_COLUMNS = 12


class Turns(NamedTuple):
    """What a shape makes of a row."""

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    rejected: Message | None = None


Converter = Callable[[Row], Turns]


def question_turns(question: str, answer: str) -> Turns:
    """A user's turn and the assistant's."""
    return Turns(
        ({"role": "user", "content": question}, {"role": "assistant", "content": answer}),
    )


def kind_of(value: object) -> str:
    """The type of a value in words that JSON's users know."""
    return KINDS.get(type(value), type(value).__name__)


def told_columns(columns: Mapping[str, object] | list[str]) -> str:
    """The names of a row's columns, shortened, with nothing in them that no file takes."""
    names = [column[:40] for column in columns]
    more = len(names) - MAX_TOLD_COLUMNS
    told = ", ".join(names[:MAX_TOLD_COLUMNS]) + (f" and {more} more" if more > 0 else "")
    return told.encode(errors="backslashreplace").decode() or "none"


def value_of(row: Row, column: str) -> object:
    """A column's value, or a `RowError` that tells the columns that are there."""
    try:
        return row[column]
    except KeyError:
        raise RowError(f"no column `{column}` (the columns are: {told_columns(row)})") from None


def text_in(row: Row, column: str) -> str:
    """The text of a column that has to hold some, without white space around it."""
    value = value_of(row, column)
    if isinstance(value, str):
        text = value.strip()
    elif value is None:
        text = ""
    else:
        raise RowError(f"`{column}` is {kind_of(value)}, not text")
    if not text:
        raise RowError(f"`{column}` is empty")
    return text


def optional_text_in(row: Row, column: str) -> str:
    """The text of a column that may be absent, null or empty."""
    return text_in(row, column) if row.get(column) not in (None, "") else ""


def scalar_text(value: object, name: str) -> str:
    """A text or a number as text; a `RowError`, which tells it as `name`, for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if value is None:
        return ""
    raise RowError(f"{name} is {kind_of(value)}, not text")


def list_in(row: Row, column: str) -> list[Any]:
    """The list of a column, which may hold it as JSON text (as tables often do)."""
    value = value_of(row, column)
    if isinstance(value, str):
        value = json_in(value, f"`{column}`")
    if not isinstance(value, list):
        raise RowError(f"`{column}` is {kind_of(value)}, not a list")
    return value


def json_in(text: str, name: str) -> object:
    """The value of a JSON text; a `RowError`, which tells it as `name`, where it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RowError(f"{name} is not JSON: {error.msg} at character {error.pos + 1}") from error
