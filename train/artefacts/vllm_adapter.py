"""The adapter in the form that vLLM loads beside its base at run time.

vLLM takes one rank and one scale for all layers (its releases differ in whether they heed peft's
patterns) and knows no DoRA; whatever an adapter is made of, it is written so that nothing but the
plain product B @ A is left to compute.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from safetensors import SafetensorError
from safetensors.torch import save_file

from configs.errors import UserError
from data.cache import disk_error, new_folder
from train.lora import VISION_MODULES
from train.merging.adapters import ADAPTER_CONFIG, LoraUpdate, WeightedAdapter, read_adapters
from train.nf4_checkpoint import build_skeleton
from train.quantization import is_vision, read_config
from train.weight_files import check_free_space

# What `--max-lora-rank` may be (vllm/config/lora.py, MaxLoRARanks); memory is set aside for it.
MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# A vision-language class keeps its language model under one name in the file, another in memory.
# vLLM maps those in memory (hf_to_vllm_mapper of Mistral3ForConditionalGeneration); older releases
# load an adapter of the text class alone, `model.layers.…`, without any effect.
MEMORY_PREFIX = "model.language_model."
OTHER_PREFIXES = ("language_model.model.", "model.")


def write_vllm_adapter(
    adapters: Sequence[WeightedAdapter], folder: Path, *, checkpoint: Path
) -> dict[str, Any]:
    """Write the adapters' weighted sum to `folder`, whole or not at all; facts for the manifest.

    checkpoint: the base, whose layers they must fit. It is a peft adapter too, equal to the first
    ones to fp32 rounding: scales are in B, ranks are filled up with zeros. Errors: `UserError` for
    DoRA, for layers that the base does not have or that are not its language model's, and for a
    rank that vLLM does not take.
    """
    updates = read_adapters(adapters)
    _check_plain(updates, adapters)
    rank = max(update.a.shape[0] for update in updates.values())
    max_rank = _max_rank(rank, adapters)
    is_vision_language = read_config(checkpoint).get("model_type") == "mistral3"
    layers = _linear_layers(checkpoint)
    located = {
        _locate(module, layers, is_vision_language, adapters[0].folder): update
        for module, update in updates.items()
    }
    config = PeftLoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=_name_targets(set(located), layers),
        exclude_modules=VISION_MODULES if is_vision_language else None,
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=_base_name(adapters),
    )
    _write(folder, located, config)
    return {
        "rank": rank,
        "num_layers": len(located),
        "vllm_options": f"--enable-lora --max-lora-rank {max_rank}",
    }


def fold_update(update: LoraUpdate, *, rank: int) -> dict[str, torch.Tensor]:
    """`lora_A` (rank, in) and `lora_B` (out, rank) whose product is the update, scale and all.

    B stays in its number format where the scale fits into that exactly, and is fp32 otherwise.
    """
    missing = rank - update.a.shape[0]
    scaled = update.scale * update.b.float()
    exact = scaled.to(update.b.dtype)
    b = exact if torch.equal(exact.float(), scaled) else scaled
    return {
        "lora_A": torch.nn.functional.pad(update.a, (0, 0, 0, missing)).contiguous(),
        "lora_B": torch.nn.functional.pad(b, (0, missing)).contiguous(),
    }


def _write(folder: Path, updates: Mapping[str, LoraUpdate], config: PeftLoraConfig) -> None:
    tensors = {
        f"base_model.model.{module}.{name}.weight": tensor
        for module, update in updates.items()
        for name, tensor in fold_update(update, rank=config.r).items()
    }
    check_free_space(folder, needed=sum(tensor.nbytes for tensor in tensors.values()) + 2**20)
    with new_folder(folder) as partial:
        try:
            save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:
            raise disk_error(OSError(str(error)), folder) from error
        config.save_pretrained(str(partial))


def _max_rank(rank: int, adapters: Sequence[WeightedAdapter]) -> int:
    """The least rank that vLLM can be told to take and that is not below `rank`."""
    for allowed in MAX_RANKS:
        if allowed >= rank:
            return allowed
    raise UserError(
        f"the adapter's rank is {rank}; vLLM takes at most {MAX_RANKS[-1]}",
        where=adapters[0].folder,
        remedy="serve the merged model",
    )


def _check_plain(updates: Mapping[str, LoraUpdate], adapters: Sequence[WeightedAdapter]) -> None:
    if any(update.magnitude is not None for update in updates.values()):
        raise UserError(
            "vLLM cannot load a DoRA adapter beside its base",
            where=adapters[0].folder,
            remedy="serve the merged model, or train without train.lora.dora",
        )


def _linear_layers(checkpoint: Path) -> set[str]:
    """The base's linear layers by their names in memory."""
    model = build_skeleton(checkpoint)
    return {n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def _locate(module: str, layers: set[str], is_vision_language: bool, adapter: Path) -> str:
    """What the layer that an update belongs to is called in memory."""
    candidates = [module]
    if is_vision_language:
        candidates += [
            MEMORY_PREFIX + module.removeprefix(prefix)
            for prefix in OTHER_PREFIXES
            if module.startswith(prefix)
        ]
    found = next((candidate for candidate in candidates if candidate in layers), None)
    if found is None or is_vision(found):
        raise UserError(
            f"the adapter updates {module}, which "
            + ("the base does not have" if found is None else "vLLM does not take adapters for"),
            where=adapter,
            remedy="take the base that the adapter was trained on"
            if found is None
            else "serve the merged model",
        )
    return found


def _name_targets(adapted: set[str], layers: set[str]) -> list[str]:
    """What peft is to adapt: the layers' last names where they tell them from all others."""
    last_names = {layer.rpartition(".")[2] for layer in adapted}
    matched = {
        layer for layer in layers if layer.rpartition(".")[2] in last_names and not is_vision(layer)
    }
    return sorted(last_names if matched == adapted else adapted)


def _base_name(adapters: Sequence[WeightedAdapter]) -> str:
    told = json.loads((adapters[0].folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return str(told.get("base_model_name_or_path") or "")
