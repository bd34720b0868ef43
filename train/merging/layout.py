"""Where each tensor lies in a safetensors file, so that it is read and written in pieces.

The safetensors library reads slices, but through a map of the file whose every page counts as this
process's memory, and it writes whole files alone. The format is made for more: eight bytes with the
header's length, a JSON header, then the tensors' bytes.
"""

import json
import os
import struct
from pathlib import Path
from typing import NamedTuple

import torch

from configs.errors import UserError

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class PlacedTensor(NamedTuple):
    """dtype: as the format calls it; start, stop: its bytes, counted from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_layout(file: Path) -> list[PlacedTensor]:
    """All tensors of a safetensors file, by where they stand; a `UserError` for a damaged one."""
    try:
        with file.open("rb") as handle:
            (header_bytes,) = struct.unpack("<Q", handle.read(8))
            size = os.fstat(handle.fileno()).st_size
            if header_bytes > size:
                raise ValueError("its header is cut off")
            header = json.loads(handle.read(header_bytes))
        begin = 8 + header_bytes
        header.pop("__metadata__", None)
        tensors = [
            PlacedTensor(
                name,
                told["dtype"],
                tuple(told["shape"]),
                begin + told["data_offsets"][0],
                begin + told["data_offsets"][1],
            )
            for name, told in header.items()
        ]
        tensors.sort(key=lambda tensor: tensor.start)
        ends = [begin, *(tensor.stop for tensor in tensors)]
        if [tensor.start for tensor in tensors] != ends[:-1] or ends[-1] != size:
            raise ValueError("its tensors do not fill it")
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise UserError(
            f"not a whole safetensors file: {error}",
            where=file,
            remedy="fetch the model's safetensors files anew",
        ) from error
    return tensors


def read_piece(descriptor: int, start: int, out: torch.Tensor) -> None:
    """Fill the contiguous tensor `out` with a file's bytes from `start`."""
    view = _bytes_of(out)
    num_read = 0
    while num_read < len(view):
        count = os.preadv(descriptor, [view[num_read:]], start + num_read)
        if not count:
            raise EOFError("the weight file became shorter while it was read")
        num_read += count


def write_piece(descriptor: int, start: int, piece: torch.Tensor) -> None:
    """Write a contiguous tensor's bytes into a file at `start`."""
    view = _bytes_of(piece)
    num_written = 0
    while num_written < len(view):
        num_written += os.pwrite(descriptor, view[num_written:], start + num_written)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    assert tensor.is_contiguous()
    return tensor.view(torch.uint8).view(-1).numpy().data
