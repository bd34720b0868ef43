"""The sum of a base's rows and their update in fp32, in tiles that fit a core's cache."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from train.merging.adapters import LoraUpdate

# Rows and columns that are summed at a time. Smaller tiles have two threads wait for Python's lock
# (2.2 ns an element at 64 × 2048, 1.3 at this size), larger ones leave the processor's caches.
TILE_ROWS = 64
TILE_COLUMNS = 5120


@dataclass
class Survival:
    """What rounding has left of an update: sums over its elements, to be added up over tiles."""

    dot: float = 0.0
    wanted: float = 0.0
    applied: float = 0.0

    def add(self, other: Self) -> None:
        """Take another tile's sums in."""
        self.dot += other.dot
        self.wanted += other.wanted
        self.applied += other.applied

    @property
    def cosine(self) -> float:
        """Between wanted and applied update: 1 is all of it, 0 where nothing was applied.

        1 too where nothing was wanted: an update of zeros is applied in full.
        """
        if not self.wanted:
            return 1.0
        return self.dot / math.sqrt(self.wanted * self.applied) if self.applied else 0.0


class Buffers(NamedTuple):
    """fp32 tiles that are used again and again: fresh ones would cost more than the sum."""

    before: torch.Tensor
    delta: torch.Tensor
    total: torch.Tensor


class RowSummer:
    """Adds one layer's update to its base, some rows at a time; one per thread."""

    def __init__(self, update: LoraUpdate) -> None:
        self._a = update.a.float()
        self._b = update.scale * update.b.float()
        self._magnitude = None if update.magnitude is None else update.magnitude.float()
        self._storage = Buffers(*(torch.empty(TILE_ROWS * TILE_COLUMNS) for _ in Buffers._fields))
        self._buffers: dict[torch.Size, Buffers] = {}

    def add(self, base: torch.Tensor, first_row: int, out: torch.Tensor) -> Survival:
        """Write base + update to `out`, rounded once to its dtype; both (rows, in).

        base: the rows from `first_row` on, in any floating-point format.
        """
        survival = Survival()
        for start in range(0, len(base), TILE_ROWS):
            rows = slice(start, start + TILE_ROWS)
            b = self._b[first_row + start : first_row + start + len(base[rows])]
            stretch = self._stretch(base[rows], first_row + start, b)
            for column in range(0, base.shape[1], TILE_COLUMNS):
                columns = slice(column, column + TILE_COLUMNS)
                tile = base[rows, columns], b, self._a[:, columns], stretch, out[rows, columns]
                survival.add(self._add_tile(*tile))
        return survival

    def _add_tile(
        self,
        base: torch.Tensor,
        b: torch.Tensor,
        a: torch.Tensor,
        stretch: torch.Tensor | None,
        out: torch.Tensor,
    ) -> Survival:
        before, delta, total = self._shaped_buffers(base.shape)
        before.copy_(base)
        torch.mm(b, a, out=delta)
        torch.add(before, delta, out=total)
        if stretch is not None:
            total *= stretch
            torch.sub(total, before, out=delta)
        out.copy_(total)
        applied = total.copy_(out).sub_(before)
        return Survival(_dot(delta, applied), _dot(delta, delta), _dot(applied, applied))

    def _stretch(self, base: torch.Tensor, first_row: int, b: torch.Tensor) -> torch.Tensor | None:
        """What DoRA multiplies each row of the sum by, (rows, 1); None without DoRA."""
        if self._magnitude is None:
            return None
        lengths: torch.Tensor = torch.linalg.vector_norm(
            torch.addmm(base.float(), b, self._a), dim=1
        )
        magnitude = self._magnitude[first_row : first_row + len(base)]
        return (magnitude / lengths).unsqueeze(1)

    def _shaped_buffers(self, shape: torch.Size) -> Buffers:
        """Made once a shape: views cost as much as the work on a small tile."""
        if shape not in self._buffers:
            parts = (buffer[: shape.numel()].view(shape) for buffer in self._storage)
            self._buffers[shape] = Buffers(*parts)
        return self._buffers[shape]


def _dot(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.dot(left.view(-1), right.view(-1)))
