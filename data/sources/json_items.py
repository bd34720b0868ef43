"""The rows of a JSON document, cut out of it as bytes, so that no large file is held as a whole.

Only brackets and quotes are looked at here; each row is parsed where it is read, and a fault within
one costs that row alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from configs.errors import UserError
from data.conversation import FixedSide
from data.sources.json_lines import Rows, parse_object
from data.sources.streams import MAX_ROW_BYTES, Place

READ_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
CHUNK_ROWS = 4000
ARRAY_KEYS = ("data", "rows", "examples")
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
WITHIN = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
SPACE = re.compile(rb"[ \t\r\n]*+")
SCALAR = re.compile(rb"[^ \t\r\n,\]}]*+")
OPENING, CLOSING, QUOTE = b"[{", b"]}", ord('"')

Item = tuple[str, bytes]


@dataclass(frozen=True, kw_only=True)
class ItemChunk:
    """Rows as JSON texts, from row `first` (counted from 0), each with its key or none.

    key_column: where a row's key is put, unless the row has that column itself.
    """

    name: str
    side: FixedSide
    first: int
    items: list[Item]
    key_column: str

    def rows(self) -> Rows:
        """Each row's place and object."""
        for number, (key, text) in enumerate(self.items, start=self.first):
            row = parse_object(text)
            if key and isinstance(row, dict):
                row.setdefault(self.key_column, key)
            yield f"{self.name}[{number}]", row


def item_chunks(
    stream: BinaryIO, *, name: str, side: FixedSide, place: Place, key_column: str
) -> Iterator[ItemChunk]:
    """The rows of an array of objects, of `{"data": [...]}`, or of an object of objects.

    Errors: `UserError` with the byte for a document that is none of these, or breaks off.
    """
    items: list[Item] = []
    size = first = 0
    for item in _Document(stream, place).items():
        items.append(item)
        size += len(item[1])
        place.number += 1
        if size >= CHUNK_BYTES or len(items) >= CHUNK_ROWS:
            yield ItemChunk(name=name, side=side, first=first, items=items, key_column=key_column)
            first, items, size = first + len(items), [], 0
    if items:
        yield ItemChunk(name=name, side=side, first=first, items=items, key_column=key_column)


class _Document:
    """A window on a JSON document that moves from value to value."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._stream = stream
        self._place = place
        self._window = b""
        self._at = 0
        self._passed = 0

    def items(self) -> Iterator[Item]:
        """All rows, each with its key, which is empty in an array."""
        start = self._next_byte()
        if start == b"[":
            yield from self._array()
        elif start == b"{":
            yield from self._object()
        else:
            raise self._broken("the file holds neither a JSON array nor a JSON object")
        if self._next_byte():
            raise self._broken("something follows the end of the JSON document")

    def _array(self) -> Iterator[Item]:
        self._at += 1
        if self._next_byte() == b"]":
            self._at += 1
            return
        while True:
            yield "", self._value()
            self._step(after=b"]")
            if self._window[self._at - 1 : self._at] == b"]":
                return

    def _object(self) -> Iterator[Item]:
        """Rows under keys; what is no object is a row only where there is no array of rows."""
        others: list[Item] = []
        has_array = False
        self._at += 1
        if self._next_byte() == b"}":
            self._at += 1
            return
        while True:
            key = self._key()
            start = self._next_byte()
            if key in ARRAY_KEYS and start == b"[":
                has_array = True
                yield from self._array()
            elif start == b"{":
                yield key, self._value()
            else:
                others.append((key, self._value()))
            self._step(after=b"}")
            if self._window[self._at - 1 : self._at] == b"}":
                break
        if not has_array:
            yield from others

    def _key(self) -> str:
        if self._next_byte() != b'"':
            raise self._broken("expected a key in double quotes")
        text = self._string()
        if self._next_byte() != b":":
            raise self._broken("expected a colon after the key")
        self._at += 1
        try:
            return str(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            raise self._broken(f"a key is not valid JSON: {error.msg}") from error

    def _step(self, *, after: bytes) -> None:
        """Go past a comma, or past the closing bracket `after`."""
        found = self._next_byte()
        if found not in (b",", after):
            told = repr(found.decode(errors="replace")) if found else "the end of the file"
            raise self._broken(f"expected ',' or '{after.decode()}', found {told}")
        self._at += 1

    def _value(self) -> bytes:
        start = self._next_byte()
        if start == b'"':
            return self._string()
        if start and start in OPENING:
            return self._container()
        while (end := self._end_of(SCALAR)) == len(self._window) and self._read_on():
            pass
        if end == self._at:
            raise self._broken("expected a value")
        return self._take(end)

    def _string(self) -> bytes:
        while (found := STRING.match(self._window, self._at)) is None:
            if not self._read_on():
                raise self._broken("the file breaks off within a text")
        return self._take(found.end())

    def _container(self) -> bytes:
        """A whole array or object: to the bracket that closes as many as were opened."""
        depth, at = 0, self._at
        while True:
            at = self._end_of(WITHIN, at)
            if at == len(self._window) or self._window[at] == QUOTE:
                # A quote here opens a text that goes on beyond the window.
                at -= self._at
                if not self._read_on():
                    raise self._broken("the file breaks off within a row that begins")
                at += self._at
                continue
            depth += 1 if self._window[at] in OPENING else -1
            at += 1
            if depth == 0:
                return self._take(at)

    def _next_byte(self) -> bytes:
        """The next byte that is no white space, which stays to be read; empty at the end."""
        while (end := self._end_of(SPACE)) == len(self._window):
            self._at = end
            if not self._read_on():
                return b""
        self._at = end
        return self._window[end : end + 1]

    def _end_of(self, pattern: re.Pattern[bytes], at: int | None = None) -> int:
        found = pattern.match(self._window, self._at if at is None else at)
        assert found, "the pattern matches nothing as well"
        return found.end()

    def _take(self, end: int) -> bytes:
        value = self._window[self._at : end]
        self._at = end
        return value

    def _read_on(self) -> bool:
        """Widen the window at its end, and drop what has been read; False at the file's end."""
        if len(self._window) - self._at > MAX_ROW_BYTES:
            raise self._broken(
                f"brackets or quotes do not close within {MAX_ROW_BYTES >> 20} MiB of a row that "
                "begins"
            )
        more = self._stream.read(READ_BYTES)
        self._passed += self._at
        self._window = self._window[self._at :] + more
        self._at = 0
        return bool(more)

    def _broken(self, what: str) -> UserError:
        return UserError(
            f"{what} at byte {self._passed + self._at + 1:,}",
            where=str(self._place),
            remedy="mend the file there; rows of any number are safer one a line (JSON Lines)",
        )
