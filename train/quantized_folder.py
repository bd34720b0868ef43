"""A checkpoint of quantized weights, written tensor by tensor out of whatever the weights are."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data.cache import new_folder
from train.merging.tensor_source import TensorSource
from train.quantization import read_config
from train.weight_files import (
    OnTensor,
    ShardWriter,
    check_free_space,
    list_shards,
    read_tensor,
    tensor_names,
    write_carried_files,
)


class CheckpointTensors:
    """The tensors of a checkpoint folder as its files have them: a `TensorSource`."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    @cached_property
    def _places(self) -> dict[str, Path]:
        return {
            name: shard for shard in list_shards(self.checkpoint) for name in tensor_names(shard)
        }

    @property
    def names(self) -> list[str]:
        """All tensors, in the order of the files."""
        return list(self._places)

    def read(self, name: str) -> torch.Tensor:
        """A tensor in the number format of its file."""
        return read_tensor(self._places[name], name)


def write_quantized(
    source: TensorSource,
    folder: Path,
    *,
    convert: Callable[[str], dict[str, torch.Tensor]],
    told: dict[str, Any],
    num_bytes: int,
    remedy: str,
    on_tensor: OnTensor | None = None,
) -> None:
    """Write `folder`, whole or not at all, with what `convert` makes of every tensor's name.

    told: what config.json says besides what the source's says; num_bytes: not less than the weights
    will take up. Errors: `UserError` with `remedy` where so much is not free, and for a full disk.
    `convert` reads the tensor itself, so that nothing of it is held when the next one is read.
    """
    check_free_space(folder, needed=num_bytes, remedy=remedy)
    with new_folder(folder) as partial:
        writer = ShardWriter(partial)
        for num_done, name in enumerate(source.names, start=1):
            writer.add(convert(name))
            if on_tensor is not None:
                on_tensor(num_done, len(source.names))
        writer.finish()
        config = read_config(source.checkpoint) | told
        write_carried_files(source.checkpoint, partial, config=config)
