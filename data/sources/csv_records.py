"""CSV and TSV by records, which may span lines; one that is broken costs no other."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from configs.errors import UserError
from data.checks import MAX_CHARACTERS, RowError
from data.conversation import FixedSide
from data.sources.json_lines import Rows
from data.sources.streams import Place, bounded_lines

CHUNK_ROWS = 4000
CHUNK_CHARACTERS = 1 << 20

Record = tuple[int, list[str] | RowError]


@dataclass(frozen=True, kw_only=True)
class RecordChunk:
    """Records of a table, each with its first line's number."""

    name: str
    side: FixedSide
    columns: list[str]
    records: list[Record]

    def rows(self) -> Rows:
        """Each record's place and its fields by column."""
        columns = self.columns
        for number, fields in self.records:
            where = f"{self.name}:{number}"
            if isinstance(fields, RowError):
                yield where, fields
            elif len(fields) != len(columns):
                told = RowError(f"{len(fields)} fields instead of {len(columns)}")
                yield where, told
            elif not _is_utf8(fields):
                yield where, RowError("not valid UTF-8")
            else:
                yield where, dict(zip(columns, fields, strict=True))


def record_chunks(
    stream: BinaryIO,
    *,
    name: str,
    side: FixedSide,
    place: Place,
    delimiter: str,
    columns: list[str] | None,
) -> Iterator[RecordChunk]:
    """Records under the names in the first line, or under `columns` where there is no such line.

    Errors: `UserError` for a header that cannot be used.
    """
    lines = (line.decode(errors="surrogateescape") for line in bounded_lines(stream))
    first_line = next(lines, None)
    if first_line is None:
        return
    if delimiter == "," and "," not in first_line and ";" in first_line:
        # What a spreadsheet saves where the comma is the decimal sign.
        delimiter = ";"
    found = read_records(lines, first_line=first_line, delimiter=delimiter)
    if columns is None:
        columns = _header(next(found, (1, []))[1], place)
    records: list[Record] = []
    size = 0
    for number, fields in found:
        if number == 1 and fields == columns:
            continue
        place.number = number
        records.append((number, fields))
        size += sum(map(len, fields)) if isinstance(fields, list) else 0
        if size >= CHUNK_CHARACTERS or len(records) >= CHUNK_ROWS:
            yield RecordChunk(name=name, side=side, columns=columns, records=records)
            records, size = [], 0
    if records:
        yield RecordChunk(name=name, side=side, columns=columns, records=records)


def read_records(lines: Iterator[str], *, first_line: str, delimiter: str) -> Iterator[Record]:
    """Records with the numbers of their first lines; blank lines are none.

    A record whose quotes are wrong is a `RowError`, and reading goes on with its second line: what
    a quote that never closes has swallowed is read once more, as the rows that it is.
    """
    csv.field_size_limit(MAX_CHARACTERS)
    again = deque([first_line])
    taken: list[str] = []

    def feed() -> Iterator[str]:
        while True:
            line = again.popleft() if again else next(lines, None)
            if line is None:
                return
            taken.append(line)
            yield line

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    number = 1
    while True:
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, RowError(_reason(str(error)))
            again.extendleft(reversed(taken[1:]))
            number += 1
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
            continue
        if fields:
            yield number, fields
        number += len(taken)


def _header(fields: list[str] | RowError, place: Place) -> list[str]:
    if isinstance(fields, RowError):
        what = f"the header cannot be read: {fields}"
    elif not _is_utf8(fields):
        what = "the header is not valid UTF-8"
    elif len(set(fields)) < len(fields):
        twice = next(name for name in fields if fields.count(name) > 1)
        what = f"the header has the name {twice!r} twice"
    else:
        return [name.strip() for name in fields]
    raise UserError(
        what,
        where=f"{place.file}:1",
        remedy="mend the first line, or name the `columns` of a file that has no header",
    )


def _is_utf8(fields: list[str]) -> bool:
    """Whether all bytes were characters: others were read as halves of surrogate pairs."""
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True


def _reason(told: str) -> str:
    if "field larger" in told:
        return f"a field of more than {MAX_CHARACTERS:,} characters, or a quote that never closes"
    if "unexpected end" in told:
        return "a quote is opened and never closed"
    if "expected after" in told:
        return 'more after the quote that closes a field: write quotes within it twice ("")'
    return f"not a record: {told}"
