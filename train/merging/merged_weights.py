"""Base plus adapters as a source of tensors: where each comes from and what is added to it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch

from configs.errors import UserError
from configs.schema import BaseName
from train.merging.adapters import AdapterUpdates, LoraUpdate, WeightedAdapter, read_adapters
from train.merging.layout import DTYPES, PlacedTensor, read_layout
from train.merging.summing import RowSummer
from train.nf4_checkpoint import resolve_nf4
from train.plain_checkpoint import STATE, read_dequantized
from train.quantized_folder import CheckpointTensors
from train.weight_files import list_shards, tensor_names

# A vision-language class keeps its language model under one name in the file, another in memory.
RENAMED_PREFIXES = (("model.language_model.", "language_model.model."),)


@dataclass(frozen=True, eq=False)
class MergedWeights:
    """A `TensorSource` of sums; names and layout are those of `checkpoint`, the unquantized base.

    updates: by module path; modules: the one that updates each tensor; dequantized: the file that
    holds the NF4 form of each tensor that is to be what the adapter saw in training, that is,
    quantized and back, whether it is updated or not.
    """

    checkpoint: Path
    updates: AdapterUpdates
    modules: Mapping[str, str]
    dequantized: Mapping[str, Path]

    @classmethod
    def open(
        cls, checkpoint: Path, adapters: Sequence[WeightedAdapter], *, base: BaseName = "bf16"
    ) -> Self:
        """Find every update's tensor; errors: `UserError` where one has none, or of another size.

        base: the checkpoint's own weights, or its NF4 weights put back into bf16; these are made at
        first use, as `resolve_nf4` does.
        """
        check_unquantized(checkpoint)
        updates = read_adapters(adapters)
        placed = {tensor.name: tensor for tensor in _all_tensors(checkpoint)}
        modules = {_locate(module, placed, checkpoint): module for module in updates}
        for name, module in modules.items():
            _check_fits(placed[name], updates[module], checkpoint)
        dequantized = _nf4_places(resolve_nf4(checkpoint)) if base == "nf4" else {}
        return cls(checkpoint, updates, modules, dequantized)

    @cached_property
    def tensors(self) -> list[PlacedTensor]:
        """All tensors of the checkpoint's files, in their order."""
        return list(_all_tensors(self.checkpoint))

    @property
    def names(self) -> Sequence[str]:
        """All tensors, in the order of the checkpoint's files."""
        return [tensor.name for tensor in self.tensors]

    def is_as_in_file(self, name: str) -> bool:
        """Whether a tensor of the sum is the base's own, bit for bit."""
        return name not in self.modules and name not in self.dequantized

    def update_of(self, name: str) -> LoraUpdate:
        """What is added to a tensor that is updated."""
        return self.updates[self.modules[name]]

    def read_base(self, name: str) -> torch.Tensor:
        """A tensor before anything is added to it."""
        if name in self.dequantized:
            file = self.dequantized[name]
            return read_dequantized({part: file for part in tensor_names(file)}, name)
        return self._base.read(name)

    def read(self, name: str) -> torch.Tensor:
        """A tensor of the sum: updated ones in fp32, not rounded; the others as the base has them.

        Memory: the base's tensor and, for updated ones, the sum.
        """
        base = self.read_base(name)
        if name not in self.modules:
            return base
        total = torch.empty(base.shape)
        RowSummer(self.update_of(name)).add(base, 0, total)
        return total

    @cached_property
    def _base(self) -> CheckpointTensors:
        return CheckpointTensors(self.checkpoint)


def check_unquantized(base: Path) -> None:
    """Raise a `UserError` for a base whose weights are not numbers that can be added to."""
    config = json.loads((base / "config.json").read_text())
    if config.get("quantization_config"):
        raise UserError(
            "the base's weights are quantized: an adapter cannot be merged into them",
            where=base,
            remedy="merge into the model's bf16 checkpoint",
        )


def _all_tensors(checkpoint: Path) -> Iterator[PlacedTensor]:
    for shard in list_shards(checkpoint):
        yield from read_layout(shard)


def _locate(module: str, placed: Mapping[str, PlacedTensor], base: Path) -> str:
    """The base's tensor that a module's update belongs to."""
    candidates = [module] + [
        file_prefix + module.removeprefix(memory_prefix)
        for memory_prefix, file_prefix in RENAMED_PREFIXES
        if module.startswith(memory_prefix)
    ]
    for candidate in candidates:
        if f"{candidate}.weight" in placed:
            return f"{candidate}.weight"
    raise UserError(
        f"the adapter updates {module}, which the base does not have",
        where=base,
        remedy="merge into the base that the adapter was trained on",
    )


def _check_fits(tensor: PlacedTensor, update: LoraUpdate, base: Path) -> None:
    if tensor.shape != update.shape or tensor.dtype not in DTYPES:
        raise UserError(
            f"the adapter's update of {tensor.name} is {_size(update.shape)}, the base's weight "
            f"{_size(tensor.shape)} {tensor.dtype}",
            where=base,
            remedy="merge into the base that the adapter was trained on, in BF16, F16 or F32",
        )


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(str(length) for length in shape)


def _nf4_places(quantized: Path) -> dict[str, Path]:
    """The quantized weights of an NF4 checkpoint, and the files that hold them."""
    return {
        name.removesuffix(f".{STATE}"): shard
        for shard in list_shards(quantized)
        for name in tensor_names(shard)
        if name.endswith(f".{STATE}")
    }
