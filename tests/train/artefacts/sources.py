"""Sums of a checkpoint and something in fp32, as merging gives them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from train.quantized_folder import CheckpointTensors


@dataclass(frozen=True)
class ShiftedTensors:
    """A `TensorSource`: some tensors have a fixed random update added, in fp32."""

    checkpoint: Path
    updated: frozenset[str]
    relative: float

    @property
    def names(self) -> Sequence[str]:
        return CheckpointTensors(self.checkpoint).names

    def delta(self, name: str) -> torch.Tensor:
        """The update of one tensor: `relative` times as large as the weights, of random signs."""
        weight = CheckpointTensors(self.checkpoint).read(name).float()
        generator = torch.Generator().manual_seed(len(name))
        return torch.randn(weight.shape, generator=generator) * self.relative * weight.std()

    def read(self, name: str) -> torch.Tensor:
        tensor = CheckpointTensors(self.checkpoint).read(name)
        return tensor.float() + self.delta(name) if name in self.updated else tensor


def build_llama(folder: Path, *, hidden: int = 128, intermediate: int = 256) -> Path:
    """A random Llama of two layers without tokenizer; returns `folder`."""
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint folder."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def linear_names(names: Iterable[str]) -> list[str]:
    """The language model's linear layers' weights among a checkpoint's tensors."""
    return [name for name in names if "_proj.weight" in name and "vision" not in name]
