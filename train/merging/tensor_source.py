"""Weights by their names in a checkpoint's files, whatever has to be done to get at them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch


class TensorSource(Protocol):
    """Reads a tensor at a time: what has to be in memory does not grow with the model."""

    @property
    def checkpoint(self) -> Path:
        """The folder whose names, layout, configuration and tokenizer are those of the source."""

    @property
    def names(self) -> Sequence[str]:
        """All tensors, in the order of the checkpoint's files."""

    def read(self, name: str) -> torch.Tensor:
        """A tensor: in fp32 where it is a sum that was not rounded, else as the files have it."""
