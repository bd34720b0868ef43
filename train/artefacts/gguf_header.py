"""What stands before the values in a GGUF file, read and written without unpacking vocabularies.

The gguf package makes Python objects of every token and merge: 19 s and 0.6 GiB for Mistral's
131,072 on a busy core. Here metadata stay the bytes that they are, in a fraction of a second.
Layout of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf

from configs.errors import UserError

ValueType = gguf.GGUFValueType
VERSIONS = (2, 3)
# As long a name as leaves room for a text of one letter, at the least, in 32 bytes.
FILLER = "tunery.fill"
# A scalar's form in `struct`; those of text and arrays depend on the value.
FORMS = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}


class Field(NamedTuple):
    """A value of the metadata: its type, and its bytes as they stand in the file."""

    kind: gguf.GGUFValueType
    raw: bytes

    @property
    def value(self) -> Any:  # noqa: ANN401 - a number, a truth or a text
        """The value of a scalar or text; arrays are not unpacked."""
        if self.kind == ValueType.STRING:
            return self.raw[8:].decode("utf-8")
        return struct.unpack(FORMS[self.kind], self.raw)[0]


class TensorPlace(NamedTuple):
    """A tensor in a GGUF file. shape: rows last, as numpy has it; offset: from the file's start."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    offset: int

    @property
    def num_bytes(self) -> int:
        """Bytes of all its values."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * size


class Header(NamedTuple):
    """All that stands in a GGUF file before its tensors' values."""

    fields: dict[str, Field]
    tensors: list[TensorPlace]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model's family."""
        return str(self.fields["general.architecture"].value)

    @property
    def alignment(self) -> int:
        """Bytes that every tensor's beginning is a multiple of."""
        field = self.fields.get("general.alignment")
        return int(field.value) if field else int(gguf.GGUF_DEFAULT_ALIGNMENT)


def read_header(file: Path) -> Header:
    """The header of a GGUF file. Errors: `UserError` where it is none, or its values are cut."""
    try:
        with (
            file.open("rb") as handle,
            mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _Reader(content).read()
    except (ValueError, KeyError, struct.error) as error:
        raise UserError(
            f"the file cannot be read as GGUF: {error}",
            where=file,
            remedy="check the free disk space, and make it again",
        ) from error


def number_field(value: int) -> Field:
    """A whole number of the metadata."""
    return Field(ValueType.UINT32, struct.pack("<I", value))


def text_field(text: str) -> Field:
    """A text of the metadata."""
    return Field(ValueType.STRING, _pack_text(text))


def replace_fields(file: Path, fields: dict[str, Field]) -> None:
    """Set metadata of a file where it stands; together they may take no more room than before."""
    header = read_header(file)
    start = min(tensor.offset for tensor in header.tensors)
    changed = header._replace(fields=header.fields | fields)
    packed = pack_header(changed)
    if len(packed) < start:
        # An alignment's worth became free, which a text fills that nobody reads.
        overhead = len(_pack_field(FILLER, text_field("")))
        filler = text_field(" " * (start - len(_pack(changed)) - overhead))
        packed = pack_header(changed._replace(fields=changed.fields | {FILLER: filler}))
    assert len(packed) == start, "the new metadata do not fit"
    with file.open("r+b") as handle:
        handle.write(packed)


def pack_header(header: Header) -> bytes:
    """The header's bytes, up to the first tensor's value; the tensors' own offsets do not count.

    The values have to follow in the tensors' order, each filled up to the alignment.
    """
    packed = _pack(header)
    return packed + bytes(padding(len(packed), header.alignment))


def padding(num_bytes: int, alignment: int) -> int:
    """Bytes that are missing to the next multiple."""
    return -num_bytes % alignment


def _pack(header: Header) -> bytes:
    parts = [struct.pack("<IIQQ", gguf.GGUF_MAGIC, 3, len(header.tensors), len(header.fields))]
    parts += [_pack_field(name, field) for name, field in header.fields.items()]
    for tensor, offset in zip(header.tensors, _offsets(header), strict=True):
        size = len(tensor.shape)
        parts.append(_pack_text(tensor.name))
        parts.append(struct.pack(f"<I{size}Q", size, *reversed(tensor.shape)))
        parts.append(struct.pack("<IQ", tensor.kind, offset))
    return b"".join(parts)


def _offsets(header: Header) -> Sequence[int]:
    offsets, offset = [], 0
    for tensor in header.tensors:
        offsets.append(offset)
        offset += tensor.num_bytes + padding(tensor.num_bytes, header.alignment)
    return offsets


def _pack_field(name: str, field: Field) -> bytes:
    return _pack_text(name) + struct.pack("<I", field.kind) + field.raw


def _pack_text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


class _Reader:
    """Goes through a file from its beginning."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0

    def read(self) -> Header:
        magic, version, num_tensors, num_fields = self._take("<IIQQ")
        if magic != gguf.GGUF_MAGIC or version not in VERSIONS:
            raise ValueError(f"its first bytes are {magic:#x}, version {version}")
        fields = dict(self._field() for _ in range(num_fields))
        infos = [self._tensor() for _ in range(num_tensors)]
        header = Header(fields, infos)
        start = self._at + padding(self._at, header.alignment)
        tensors = [info._replace(offset=info.offset + start) for info in infos]
        if any(one.offset + one.num_bytes > len(self._content) for one in tensors):
            raise ValueError("it ends before its tensors do")
        return Header(fields, tensors)

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return values

    def _text(self) -> str:
        (length,) = self._take("<Q")
        self._at += length
        return self._content[self._at - length : self._at].decode("utf-8")

    def _field(self) -> tuple[str, Field]:
        name = self._text()
        kind = ValueType(self._take("<I")[0])
        start = self._at
        self._skip(kind, 1)
        return name, Field(kind, self._content[start : self._at])

    def _skip(self, kind: gguf.GGUFValueType, num_values: int) -> None:
        if kind in FORMS:
            self._at += num_values * struct.calcsize(FORMS[kind])
            return
        for _ in range(num_values):
            if kind == ValueType.STRING:
                (length,) = self._take("<Q")
                self._at += length
            else:
                inner, length = self._take("<IQ")
                self._skip(ValueType(inner), length)

    def _tensor(self) -> TensorPlace:
        name = self._text()
        (size,) = self._take("<I")
        shape = self._take(f"<{size}Q")
        kind, offset = self._take("<IQ")
        return TensorPlace(name, shape[::-1], gguf.GGMLQuantizationType(kind), offset)
