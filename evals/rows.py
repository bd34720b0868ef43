"""The evaluation's input: conversations out of the data stage's parquet files, a few at a time."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import orjson
import pyarrow.parquet

from configs.errors import UserError
from data.conversation import Conversation, Message, ToolDefinition, text_of
from data.evaluation_rows import question_problem

REMEDY = "run `tunery prepare` again: it writes these files"
REQUIRED = ("id", "messages")
COLUMNS = (*REQUIRED, "where", "group", "source", "tools")
# Rows of a batch: turns that hold images take megabytes each.
BATCH_ROWS = 256


class PreparedRow(NamedTuple):
    """A row as it lies in the file; messages and tools: JSON text, that most readers never parse.

    place: the file and the row's number, for errors.
    """

    id: str
    messages: str
    where: str = ""
    group: str = ""
    source: int = 0
    tools: str = ""
    place: str = ""

    def parse(self) -> Conversation:
        """The conversation; groups of different sources are different ones."""
        messages: tuple[Message, ...] = tuple(orjson.loads(self.messages))
        tools: tuple[ToolDefinition, ...] = tuple(orjson.loads(self.tools)) if self.tools else ()
        group = f"{self.source}/{self.group}" if self.group else ""
        return Conversation(
            id=self.id, where=self.where or self.id, messages=messages, tools=tools, group=group
        )


def iter_rows(file: Path) -> Iterator[PreparedRow]:
    """All rows of a parquet file of the data stage, in file order, read batch by batch.

    Errors: `UserError` for a file that cannot be read or has other columns.
    """
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            columns = _columns(file, parquet.schema_arrow.names)
            number = 0
            for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
                for record in batch.to_pylist():
                    yield PreparedRow(**record, place=f"{file}, row {number}")
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read the rows: {error}", where=file, remedy=REMEDY) from error


def load_rows(file: Path, *, limit: int | None = None) -> list[Conversation]:
    """The first `limit` rows of a parquet file, each of which ends with the expected answer.

    Errors: `UserError` for a file that cannot be read, a row that cannot be asked, or an id that
    occurs twice.
    """
    rows: list[Conversation] = []
    seen: set[str] = set()
    for prepared in islice(iter_rows(file), limit):
        row = prepared.parse()
        problem = f"the id {row.id!r} occurs twice" if row.id in seen else question_problem(row)
        if problem:
            raise UserError(problem, where=prepared.place, remedy=REMEDY)
        seen.add(row.id)
        rows.append(row)
    return rows


def question_turns(row: Conversation) -> tuple[Message, ...]:
    """Everything that is asked: all turns but the expected answer."""
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


def _columns(file: Path, names: list[str]) -> list[str]:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise UserError(f"the column {missing[0]!r} is missing", where=file, remedy=REMEDY)
    return [name for name in COLUMNS if name in names]
