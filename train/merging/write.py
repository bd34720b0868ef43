"""Merged weights as a checkpoint in its base's own layout, written piece by piece.

Every file is as long as the base's, with the same header, so a tensor's place is known before it is
made. What is not updated is copied byte by byte; what is, is read, summed and written in tiles by a
few threads. In memory are some tiles and the adapter, whatever the model's size.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from data.cache import flush_to_disk
from train.merging.layout import DTYPES, PlacedTensor, read_layout, read_piece, write_piece
from train.merging.merged_weights import MergedWeights
from train.merging.summing import TILE_ROWS, RowSummer, Survival
from train.weight_files import INDEX_FILE, OnTensor, list_carried_files, list_shards

COPY_BYTES = 2**22
PART_BYTES = 2**26
SENT_BYTES = 2**25


def write_merged(
    weights: MergedWeights, folder: Path, *, num_threads: int, on_tensor: OnTensor | None = None
) -> dict[str, float]:
    """Write the merged checkpoint into `folder`, which is empty.

    Returns the cosine between wanted and applied update of every updated tensor: 1 where rounding
    to the base's number format has left all of it.
    """
    survivals: dict[str, Survival] = {}
    flushes: list[Future[None]] = []
    num_done = 0
    with _workers(num_threads) as workers:
        for shard in list_shards(weights.checkpoint):
            with _Files(shard, folder / shard.name) as files:
                parts = [part for tensor in files.tensors for part in _split(weights, tensor)]

                def write(part: _Part, files: _Files = files) -> Survival | None:
                    return _write_part(weights, part, files)

                for part, survival in zip(parts, workers.map(write, parts), strict=True):
                    if survival is not None:
                        survivals.setdefault(part.tensor.name, Survival()).add(survival)
                    num_done += part.is_last
                    if on_tensor is not None and part.is_last:
                        on_tensor(num_done, len(weights.tensors))
            # One file goes to the disk while the next one is made.
            flushes.append(workers.submit(flush_to_disk, folder / shard.name))
        for flush in flushes:
            flush.result()
        _carry_files(weights.checkpoint, folder)
    assert survivals.keys() == weights.modules.keys(), "an update of the adapter was not merged"
    return {name: survival.cosine for name, survival in survivals.items()}


class _Part(NamedTuple):
    """A stretch of a tensor that one thread makes; start, stop: its bytes in the file."""

    tensor: PlacedTensor
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        return self.stop == self.tensor.stop


def _split(weights: MergedWeights, tensor: PlacedTensor) -> Iterator[_Part]:
    """Whole tiles of a tensor at a time, so that the threads end together.

    One that has to be dequantized first is in one part.
    """
    step = PART_BYTES
    if tensor.name in weights.dequantized:
        step = tensor.stop - tensor.start
    elif tensor.name in weights.modules:
        tile = TILE_ROWS * (tensor.stop - tensor.start) // tensor.shape[0]
        step = max(tile, PART_BYTES // tile * tile)
    # An empty tensor has a part too.
    for start in range(tensor.start, max(tensor.stop, tensor.start + 1), max(step, 1)):
        yield _Part(tensor, start, min(start + step, tensor.stop))


class _Files:
    """One of the base's weight files and the one that takes its place, open while in use."""

    def __init__(self, source: Path, target: Path) -> None:
        self.tensors = read_layout(source)
        self._source, self._target = source, target
        self._descriptors: tuple[int, int] = (-1, -1)
        self._num_unsent = 0

    def __enter__(self) -> "_Files":
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._descriptors = os.open(self._source, os.O_RDONLY), os.open(self._target, flags, 0o666)
        self.copy(0, self.tensors[0].start if self.tensors else self._source.stat().st_size)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def read(self, start: int, out: torch.Tensor) -> None:
        read_piece(self._descriptors[0], start, out)

    def write(self, start: int, piece: torch.Tensor) -> None:
        target = self._descriptors[1]
        write_piece(target, start, piece)
        self._num_unsent += piece.nbytes
        if self._num_unsent > SENT_BYTES and hasattr(os, "posix_fadvise"):
            self._num_unsent = 0
            # Has the kernel send to the disk what is written so far, while the rest is made: half
            # of the time of a copy is waiting for its last byte to get there.
            os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)

    def copy(self, start: int, stop: int) -> None:
        """Have the bytes from `start` to `stop` be those of the base."""
        buffer = torch.empty(min(COPY_BYTES, stop - start), dtype=torch.uint8)
        for place in range(start, stop, COPY_BYTES):
            piece = buffer[: stop - place]
            self.read(place, piece)
            self.write(place, piece)


def _write_part(weights: MergedWeights, part: _Part, files: _Files) -> Survival | None:
    """Make a part of a tensor; how much of its update was applied, where it has one."""
    tensor = part.tensor
    if weights.is_as_in_file(tensor.name):
        files.copy(part.start, part.stop)
        return None
    base = weights.read_base(tensor.name) if tensor.name in weights.dequantized else None
    summer = RowSummer(weights.update_of(tensor.name)) if tensor.name in weights.modules else None
    dtype, (_, width) = DTYPES[tensor.dtype], tensor.shape
    row_bytes = width * dtype.itemsize
    first_row = (part.start - tensor.start) // row_bytes
    last_row = (part.stop - tensor.start) // row_bytes
    read, written = (torch.empty(TILE_ROWS, width, dtype=dtype) for _ in range(2))
    survival = Survival()
    for row in range(first_row, last_row, TILE_ROWS):
        start = tensor.start + row * row_bytes
        rows = slice(0, min(TILE_ROWS, last_row - row))
        if base is None:
            files.read(start, read[rows])
        else:
            read[rows].copy_(base[row : row + TILE_ROWS])
        if summer is not None:
            survival.add(summer.add(read[rows], row, written[rows]))
        files.write(start, written[rows] if summer is not None else read[rows])
    return None if summer is None else survival


def _carry_files(checkpoint: Path, folder: Path) -> None:
    index = checkpoint / INDEX_FILE
    for file in [*list_carried_files(checkpoint), *([index] if index.exists() else [])]:
        shutil.copyfile(file, folder / file.name)


@contextmanager
def _workers(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each work on tensors of their own; torch starts none besides."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="merge")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
