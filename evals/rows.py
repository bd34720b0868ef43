"""The evaluation's input: conversations out of the data stage's parquet files."""

from pathlib import Path

import orjson
import pyarrow
import pyarrow.parquet

from configs.errors import UserError
from data.conversation import Conversation, Message, text_of

REMEDY = "run the data stage again: it writes the columns id and messages"


def load_rows(file: Path) -> list[Conversation]:
    """The rows of a parquet file (id: string, messages: JSON text of the turns), in file order.

    Each row ends with the reference answer, an assistant's turn. Errors: `UserError` for a file
    that cannot be read, a row that does not fit, or an id that occurs twice.
    """
    try:
        table = pyarrow.parquet.read_table(file, columns=["id", "messages"])
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read the rows: {error}", where=file, remedy=REMEDY) from error
    rows: list[Conversation] = []
    seen: set[str] = set()
    for index, record in enumerate(table.to_pylist()):
        messages: tuple[Message, ...] = tuple(orjson.loads(record["messages"]))
        problem = _problem(record["id"], messages, seen)
        if problem:
            raise UserError(problem, where=f"{file}, row {index}", remedy=REMEDY)
        seen.add(record["id"])
        rows.append(Conversation(id=record["id"], messages=messages))
    return rows


def question_turns(row: Conversation) -> tuple[Message, ...]:
    """Everything that is asked: all turns but the reference answer."""
    return row.messages[:-1]


def reference_answer(row: Conversation) -> str:
    """The last turn's text."""
    return text_of(row.messages[-1])


def is_plain(row: Conversation) -> bool:
    """Whether a row is nothing but texts: no tool calls, no images."""
    return all(
        turn["role"] != "tool" and "tool_calls" not in turn and isinstance(turn["content"], str)
        for turn in row.messages
    )


def _problem(row_id: str, messages: tuple[Message, ...], seen: set[str]) -> str | None:
    if row_id in seen:
        return f"the id {row_id!r} occurs twice"
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return "a row needs a question and, as its last turn, the assistant's answer"
    if not text_of(messages[-1]).strip():
        return "the reference answer is empty"
    return None
