"""Data files as streams of bytes, decompressed on the way, whose faults are told with a place."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from configs.errors import UserError
from data.sources.paths import unreadable

BUFFER_BYTES = 1 << 20
ZSTD_READ_BYTES = 1 << 14
# No sound row is longer, embedded images included; more of one is never held.
MAX_ROW_BYTES = 64 << 20
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class Place:
    """How far a file has been read: number counts what `unit` names (lines or rows)."""

    file: Path
    unit: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.file}, after {self.unit} {self.number:,}" if self.number else str(self.file)


@contextmanager
def open_stream(place: Place) -> Iterator[BinaryIO]:
    """The file's bytes, after a byte order mark, unpacked where its name ends in .gz or .zst.

    Errors, also while it is read: `UserError` with the place for a file that cannot be read, is cut
    off or damaged, or is not UTF-8 as a whole.
    """
    try:
        with place.file.open("rb") as raw, _unpacked(raw, place.file) as stream:
            start = stream.peek(3)[:3]
            if start.startswith(UTF16_MARKS):
                raise UserError(
                    "the file is in UTF-16",
                    where=place.file,
                    remedy="save it as UTF-8 (`iconv -f UTF-16 -t UTF-8 old > new`)",
                )
            if start == UTF8_MARK:
                stream.read(3)
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"the compressed file is damaged or cut off: {error}",
            where=str(place),
            remedy="fetch or pack it again; `gzip -t` or `zstd -t` tells whether it is whole",
        ) from error
    except OSError as error:
        raise unreadable(error, where=str(place)) from error


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream with their ends; of one that is longer than any row, its beginning."""
    while line := stream.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            skip_line(stream)
        yield line


def skip_line(stream: BinaryIO) -> None:
    """Read on to the end of the line, without holding it."""
    while (rest := stream.readline(BUFFER_BYTES)) and not rest.endswith(b"\n"):
        pass


@contextmanager
def _unpacked(raw: io.BufferedReader, file: Path) -> Iterator[io.BufferedReader]:
    if file.suffix == ".gz":
        with gzip.open(raw) as unpacked:
            yield io.BufferedReader(unpacked, BUFFER_BYTES)
    elif file.suffix == ".zst":
        yield io.BufferedReader(_ZstdStream(raw), BUFFER_BYTES)
    else:
        yield raw


class _ZstdStream(io.RawIOBase):
    """Frames of Zstandard, one after the other; a cut one is an EOFError, which the library's own
    stream reader takes for the end.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._unpacked = memoryview(b"")
        self._between_frames = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._unpacked:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._between_frames = True
            packed = packed or self._raw.read(ZSTD_READ_BYTES)
            if not packed:
                if self._between_frames:
                    return 0
                raise EOFError("it ends within a frame")
            self._between_frames = False
            self._unpacked = memoryview(self._frame.decompress(packed))
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count
