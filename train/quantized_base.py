"""Load the frozen base model, 4-bit or bf16, and prove that it is what was asked for."""

import json
import logging
from pathlib import Path
from typing import Literal

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig as PeftLoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from configs.schema import LoraConfig

# bitsandbytes logs, once a load, that an optional kernel package is absent on the CPU.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Never quantized. Skip names are matched from a module's start or by its end, and the modules of
# transformers' vision-language classes begin with `model.`: without it the entry has no effect.
UNQUANTIZED_MODULES = ["lm_head", "model.vision_tower", "model.multi_modal_projector"]


def load_base(checkpoint: Path, *, quantization: Literal["nf4", "none"]) -> PreTrainedModel:
    """The base in bf16, or with its linear layers in NF4 with double quantization (QLoRA, §3).

    On a CUDA device where there is one, else on the CPU. All parameters are frozen.
    """
    options = {"dtype": torch.bfloat16, "device_map": {"": training_device()}}
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=UNQUANTIZED_MODULES,
        )
    model_type = json.loads((checkpoint / "config.json").read_text())["model_type"]
    # Adapters of the text class alone load without effect in servers of the full model.
    auto_class = AutoModelForImageTextToText if model_type == "mistral3" else AutoModelForCausalLM
    model: PreTrainedModel = auto_class.from_pretrained(checkpoint, **options)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if quantization == "nf4":
        check_quantized(model)
        keep_trainable_layout(model)
    return model


def training_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def check_quantized(model: PreTrainedModel) -> None:
    """Assert that exactly the linear layers outside `UNQUANTIZED_MODULES` are 4-bit."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kept = any(name == skip or name.startswith(f"{skip}.") for skip in UNQUANTIZED_MODULES)
            assert isinstance(module, Linear4bit) != kept, (
                f"{name} is {type(module).__name__}: the quantization is not what was asked for"
            )


def keep_trainable_layout(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking the weights for inference at the first validation.

    On CPUs with AVX512-BF16 a `Linear4bit` in evaluation mode repacks its weight for good, and the
    kernel for that layout has no backward pass: after the first validation no gradient would flow
    through the base any more, with nothing but a warning to show for it.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def build_lora(config: LoraConfig, model: PreTrainedModel) -> PeftLoraConfig:
    """peft's configuration of the adapter: every linear layer of the language model."""
    has_vision_tower = model.config.get_text_config() is not model.config
    return PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        exclude_modules=r".*(vision_tower|multi_modal_projector).*" if has_vision_tower else None,
        bias="none",
        task_type="CAUSAL_LM",
    )
