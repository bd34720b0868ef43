"""From rows with columns to conversations: what files and data sets of every format share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from configs.data_schema import Shape, TableSource
from configs.errors import UserError
from data.checks import RowError, check_characters, check_messages, check_rejected
from data.conversation import Conversation, FixedSide, ReadRows, Reject
from data.shapes.build import build_converter
from data.shapes.columns import Row, told_columns
from data.shapes.detect import Fit, detect_shape, fit_of, told_shape
from data.sources.json_lines import Rows
from data.sources.paths import unreadable

SAMPLE_ROWS = 1000
# Columns that a shape reads beside those that it names.
ALSO_READ = {
    "alpaca": {"instruction", "input", "output", "system", "history"},
    "sharegpt": {"system", "tools"},
    "prompt_completion": {"tools"},
    "preference": {"tools"},
}


class TableChunk(Protocol):
    """Rows of one side."""

    @property
    def side(self) -> FixedSide:
        """Where the source itself puts them."""
        ...

    def rows(self) -> Rows:
        """Each row's place, and its values by column or why there are none."""
        ...


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """How rows become conversations; test_ids: the ids of an official test split, if it has any."""

    shape: Shape
    id_column: str
    group_column: str
    test_ids: frozenset[str] = frozenset()

    def read(self, rows: Rows, side: FixedSide) -> ReadRows:
        """The conversations of rows, and the rejects."""
        convert = build_converter(self.shape)
        conversations: list[Conversation] = []
        rejects: list[Reject] = []
        for where, row in rows:
            try:
                if isinstance(row, RowError):
                    raise row
                turns = convert(row)
                check_messages(turns.messages, turns.tools)
                if turns.rejected is not None:
                    check_rejected(turns.rejected, turns.messages[-1])
                id = label(row, self.id_column) or where
                group = label(row, self.group_column)
            except RowError as error:
                rejects.append(Reject(where=where, reason=str(error)))
                continue
            conversations.append(
                Conversation(
                    id=id,
                    where=where,
                    messages=turns.messages,
                    tools=turns.tools,
                    rejected=turns.rejected,
                    group=group,
                    side=self._side(id, side),
                )
            )
        num_read = len(conversations) + len(rejects)
        return ReadRows(conversations=conversations, num_read=num_read, rejects=rejects)

    def _side(self, id: str, side: FixedSide) -> FixedSide:
        if not self.test_ids or side not in ("", "train"):
            return side
        return "test" if id in self.test_ids else "train"


class Settled(NamedTuple):
    """The rules for a source's rows, and what to tell of how they were found."""

    rules: RowRules
    told: str


def settle_rules(
    config: TableSource,
    samples: Sequence[tuple[str, Iterable[TableChunk]]],
    *,
    what: str,
    default: Shape | None = None,
) -> Settled:
    """Detect the shape where it is not configured, and try it on the first rows of each side.

    samples: for each side what its rows are called in messages, and their chunks; the first one
    decides. what: the source, with its format. default: the shape of rows that need no detection.
    Errors: `UserError` where there are no rows, or where none of the first ones can be used.
    """
    shape, told = config.shape or default, ""
    for where, chunks in samples:
        rows, reasons = _first_rows(chunks)
        if not rows:
            raise _no_rows(where, reasons)
        if shape is None:
            fit = detect_shape(rows, where=where)
            shape, told = fit.shape, _told_fit(what, fit, rows, config)
        else:
            fit = fit_of(shape, rows)
            if not fit.num_fitting:
                raise _misfit(fit, where, rows)
    assert shape is not None, "a source has at least one sample"
    rules = RowRules(
        shape=shape,
        id_column=config.id_column,
        group_column=config.group_column,
        test_ids=read_test_ids(config.test_ids_path),
    )
    return Settled(rules, told)


def read_test_ids(path: Path | None) -> frozenset[str]:
    """The ids in a file: a JSON list, the keys of a JSON object, or one a line; none for None.

    Errors: `UserError` for a file that cannot be read, or holds no ids.
    """
    if path is None:
        return frozenset()
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
        listed = orjson.loads(text) if text[:1] in (b"[", b"{") else text.decode().splitlines()
    except OSError as error:
        raise unreadable(error, where=f"test_ids_path: {path}") from error
    except ValueError as error:
        raise UserError(
            f"the ids of the test split cannot be read: {error}",
            where=f"test_ids_path: {path}",
            remedy="give a JSON list of ids, a JSON object with ids as its keys, or one id a line",
        ) from error
    ids = frozenset(str(id).strip() for id in listed) - {""}
    if not ids:
        raise UserError(
            "the file of the test split's ids holds none",
            where=f"test_ids_path: {path}",
            remedy="list the ids, or leave `test_ids_path` out",
        )
    return ids


def label(row: Row, column: str) -> str:
    """The row's id or group, empty where it has none: null is nothing that rows could share."""
    value: Any = row.get(column)
    if value is None:
        return ""
    text = value if type(value) is str else str(value)
    check_characters(text, f"`{column}`")
    return text


def _first_rows(chunks: Iterable[TableChunk]) -> tuple[list[Row], list[RowError]]:
    """Rows to try a shape on, and why those before them have no columns."""
    found = islice(_all_rows(chunks), SAMPLE_ROWS)
    rows: list[Row] = []
    reasons: list[RowError] = []
    for _, row in found:
        if isinstance(row, RowError):
            reasons.append(row)
        else:
            rows.append(row)
    return rows, reasons


def _all_rows(chunks: Iterable[TableChunk]) -> Iterator[tuple[str, Row | RowError]]:
    for chunk in chunks:
        yield from chunk.rows()


def _told_fit(what: str, fit: Fit, rows: Sequence[Row], config: TableSource) -> str:
    """What was detected, from how many rows, and which columns play no part in it."""
    told = f"{what}, shape {told_shape(fit.shape)}: {fit.num_fitting:,} of the first "
    told += f"{fit.num_rows:,} rows fit"
    used = {config.id_column, config.group_column} | ALSO_READ.get(fit.shape.kind, set())
    for value in fit.shape.model_dump().values():
        used.update(value if isinstance(value, list) else [value])
    columns = dict.fromkeys(column for row in rows for column in row)
    unused = [column for column in columns if column not in used]
    return f"{told}; columns not used: {told_columns(unused)}" if unused else told


def _no_rows(where: str, reasons: Sequence[RowError]) -> UserError:
    if not reasons:
        return UserError("there are no rows", where=where, remedy="give a file with rows")
    return UserError(
        f"none of the first {len(reasons):,} rows can be read: {reasons[0]}",
        where=where,
        remedy="mend the file, or name its `format` if it is another one",
    )


def _misfit(fit: Fit, where: str, rows: Sequence[Row]) -> UserError:
    reason, _ = fit.reasons.most_common(1)[0]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return UserError(
        f"none of the first {fit.num_rows:,} rows has the shape {told_shape(fit.shape)}: {reason}",
        where=where,
        remedy=f"mend `shape` in the configuration; the columns are: {told_columns(columns)}",
    )
