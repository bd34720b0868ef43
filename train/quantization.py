"""What of a base model is quantized and how: as it should be, and as a checkpoint says it is."""

import json
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from configs.errors import UserError

# What text does not pass through in a vision-language model.
VISION_PARTS = ("vision_tower", "multi_modal_projector")
# Parts of a model that are never quantized, wherever they stand in it.
UNQUANTIZED_PARTS = ("lm_head", *VISION_PARTS)


def nf4_recipe() -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization, computing in bf16 (QLoRA, §3).

    Skip names are matched from a module's start or by its end, and the modules of transformers'
    vision-language classes begin with `model.`: the bare name alone has no effect there. Other
    readers of the checkpoint know the modules by their names in the files.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[
            *UNQUANTIZED_PARTS,
            *(f"model.{part}" for part in UNQUANTIZED_PARTS),
        ],
    )


def model_class(checkpoint: Path) -> type[AutoModelForCausalLM | AutoModelForImageTextToText]:
    """The class that the checkpoint is trained as.

    A model with a vision tower is trained as such even on text: adapters of its text class load
    without effect in servers of the full model.
    """
    is_mistral3 = read_config(checkpoint).get("model_type") == "mistral3"
    return AutoModelForImageTextToText if is_mistral3 else AutoModelForCausalLM


def read_quantization(checkpoint: Path) -> dict[str, Any] | None:
    """How the checkpoint's weights are quantized, as its config.json says; None where not."""
    config = read_config(checkpoint)
    found = config.get("quantization_config") or config.get("text_config", {}).get(
        "quantization_config"
    )
    return dict(found) if found else None


def check_is_nf4(checkpoint: Path) -> None:
    """Raise a `UserError` unless a quantized checkpoint is bitsandbytes' NF4."""
    config = read_quantization(checkpoint) or {}
    is_4bit = config.get("quant_method") == "bitsandbytes" and config.get("load_in_4bit")
    if is_4bit and config.get("bnb_4bit_quant_type") == "nf4":
        return
    method = config.get("quant_method", "an unknown method")
    if method == "bitsandbytes":
        method += " fp4" if is_4bit else " int8"
    raise UserError(
        f"the model's weights are quantized with {method}, which cannot be trained on here",
        where=checkpoint / "config.json",
        remedy="take the model's bf16 checkpoint (it is quantized to NF4 once, at first use), or "
        "one quantized to NF4 by bitsandbytes",
    )


def check_quantized(model: PreTrainedModel) -> None:
    """Assert that exactly the linear layers outside `UNQUANTIZED_PARTS` are 4-bit."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert isinstance(module, Linear4bit) != is_unquantized(name), (
                f"{name} is {type(module).__name__}: the quantization is not what was asked for"
            )


def is_unquantized(name: str) -> bool:
    """Whether the module `name` is or belongs to a part that is never quantized."""
    return not set(UNQUANTIZED_PARTS).isdisjoint(name.split("."))


def is_vision(name: str) -> bool:
    """Whether a module or tensor belongs to a part that text does not pass through."""
    return not set(VISION_PARTS).isdisjoint(name.split("."))


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's config.json."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return config
