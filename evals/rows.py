"""The evaluation's input: conversations out of the data stage's parquet files."""

from pathlib import Path

import pyarrow
import pyarrow.parquet

from configs.errors import UserError
from data.conversation import Conversation, Message

REMEDY = "run the data stage again: it writes the columns id and messages"


def load_rows(file: Path) -> list[Conversation]:
    """The rows of a parquet file (id: string, messages: list of role and content), in file order.

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
        messages = tuple(
            Message(role=turn["role"], content=turn["content"]) for turn in record["messages"]
        )
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
    return row.messages[-1]["content"]


def _problem(row_id: str, messages: tuple[Message, ...], seen: set[str]) -> str | None:
    if row_id in seen:
        return f"the id {row_id!r} occurs twice"
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return "a row needs a question and, as its last turn, the assistant's answer"
    if not messages[-1]["content"].strip():
        return "the reference answer is empty"
    return None
