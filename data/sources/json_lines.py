"""JSON Lines in blocks of whole lines, parsed where they are read and not where they are cut."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from data.checks import RowError
from data.conversation import FixedSide
from data.shapes.columns import Row, kind_of
from data.sources.streams import MAX_ROW_BYTES, Place, skip_line

BLOCK_BYTES = 1 << 20
Rows = Iterator[tuple[str, Row | RowError]]


@dataclass(frozen=True, kw_only=True)
class LineChunk:
    """Whole lines of a file, from line `first`; too_long: a line after them that was left out."""

    name: str
    side: FixedSide
    first: int
    data: bytes
    too_long: int | None = None

    def rows(self) -> Rows:
        """Each line's place and object; blank lines are not rows."""
        for number, line in enumerate(self.data.split(b"\n"), start=self.first):
            if line and not line.isspace():
                yield f"{self.name}:{number}", parse_object(line)
        if self.too_long is not None:
            told = RowError(f"a line of more than {MAX_ROW_BYTES >> 20} MiB")
            yield f"{self.name}:{self.too_long}", told


def line_chunks(
    stream: BinaryIO, *, name: str, side: FixedSide, place: Place
) -> Iterator[LineChunk]:
    """Blocks of about a MiB, which end at the ends of lines."""
    while data := stream.read(BLOCK_BYTES):
        first, too_long = place.number + 1, None
        if not data.endswith(b"\n"):
            rest = stream.readline(MAX_ROW_BYTES)
            if len(rest) == MAX_ROW_BYTES and not rest.endswith(b"\n"):
                skip_line(stream)
                data = data[: data.rfind(b"\n") + 1]
                too_long = first + data.count(b"\n")
            else:
                data += rest
        place.number = too_long or first - 1 + data.count(b"\n")
        yield LineChunk(name=name, side=side, first=first, data=data, too_long=too_long)


def parse_object(text: bytes) -> Row | RowError:
    """The object of a JSON text, or why it is none."""
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return RowError(_reason(text, error))
    if type(row) is not dict:
        return RowError(f"the row is {kind_of(row)}, not an object")
    return row


def _reason(text: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text.decode()
    except UnicodeDecodeError as broken:
        return f"not valid UTF-8 at byte {broken.start + 1}"
    if error.msg == "depth limit exceeded":
        return "not usable JSON: nested too deeply"
    return f"not valid JSON: {error.msg} at character {error.pos + 1}"
