"""Adapters as training leaves them, of every kind that is merged, and the models they belong to."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from configs.schema import BaseName, LoraConfig
from data.cache import new_folder
from train.lora import build_lora
from train.merging.adapters import WeightedAdapter
from train.merging.merged_weights import MergedWeights
from train.merging.write import write_merged
from train.quantization import model_class

# Variants of peft's configuration that are merged.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True},
    "ranks and scales by pattern": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"q_proj": 16, "layers.0.mlp.up_proj": 3},
        "use_rslora": True,
    },
}
# Both tiny models have two layers of seven linear modules.
NUM_UPDATES = 2 * 7


def load_model(checkpoint: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model of a checkpoint, as its own class."""
    model: PreTrainedModel = model_class(checkpoint).from_pretrained(checkpoint, dtype=dtype)
    return model


def write_adapter(checkpoint: Path, folder: Path, *, seed: int = 1, **options: Any) -> Path:  # noqa: ANN401 - peft's
    """An adapter with updates of a size that training gives."""
    model = load_model(checkpoint)
    lora = build_lora(LoraConfig(rank=4, alpha=8), model)
    for name, value in options.items():
        setattr(lora, name, value)
    torch.manual_seed(seed)
    train_a_little(get_peft_model(model, lora)).save_pretrained(str(folder))
    return folder


def merge(
    checkpoint: Path, *adapters: WeightedAdapter, to: Path, base: BaseName = "bf16"
) -> dict[str, float]:
    """Write the merged checkpoint `to`; the cosines of what was applied."""
    weights = MergedWeights.open(checkpoint, adapters, base=base)
    with new_folder(to) as folder:
        return write_merged(weights, folder, num_threads=2)


def train_a_little(model: PeftModel) -> PeftModel:
    """Give the factors that start as zeros or as the base's own some other values."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        if "lora_magnitude_vector" in name:
            parameter.data *= 1 + 0.1 * torch.rand_like(parameter)
    return model
