"""Merge the adapter into the base: tensor by tensor, summed in fp32, rounded once to bf16."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig as PeftLoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from configs.errors import UserError
from data.cache import new_folder
from train.weight_files import CARRIED_FILES, check_free_space, list_shards, tensor_names

# A vision-language class keeps its language model under one name in the file, another in memory.
RENAMED_PREFIXES = (("model.language_model.", "language_model.model."),)
# What an adapter's configuration may say: what is merged, and what says nothing about the update.
MERGED_FIELDS = {"r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora"}
NEUTRAL_FIELDS = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "peft_type",
    "peft_version",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}
# First weights that leave the base's own as they are.
BASE_KEEPING_INITS = (True, False, "gaussian", "eva", "orthogonal")


class LoraUpdate(NamedTuple):
    """Update of one linear layer: delta = scale · B @ A; A is (rank, in), B is (out, rank).

    magnitude, (out,): with it (DoRA, arXiv 2402.09353) the rows of base + delta are stretched to
    these lengths.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None


def merge_adapter(base: Path, adapter: Path, merged: Path) -> dict[str, Any]:
    """Write base + adapter to `merged` in the base's layout; facts for the manifest.

    Every update of the adapter must land on a tensor of the base, else nothing is written. The
    cosine between wanted and applied update shows what bf16 rounding has left of it, per tensor;
    1 is all. Memory: one shard of the base plus one tensor in fp32.
    """
    updates = read_adapter(adapter)
    check_unquantized(base)
    shards = list_shards(base)
    names = {name for shard in shards for name in tensor_names(shard)}
    located = {locate(module, names, base): update for module, update in updates.items()}
    check_free_space(merged, needed=sum(shard.stat().st_size for shard in shards))
    cosines: dict[str, float] = {}
    with new_folder(merged) as folder:
        for shard in shards:
            merged_shard, shard_cosines = merge_shard(shard, located)
            cosines |= shard_cosines
            try:
                save_file(merged_shard, folder / shard.name, metadata={"format": "pt"})
            except SafetensorError as error:
                raise UserError(
                    f"cannot write the merged weights: {error}",
                    where=merged,
                    remedy="free some disk space; nothing half-written was kept",
                ) from error
        for pattern in CARRIED_FILES:
            for file in base.glob(pattern):
                shutil.copyfile(file, folder / file.name)
    assert cosines.keys() == located.keys(), "an update of the adapter was not merged"
    worst = min(cosines, key=cosines.__getitem__)
    return {
        "num_merged_tensors": len(cosines),
        "worst_update_cosine": round(cosines[worst], 4),
        "worst_update_tensor": worst,
    }


def read_adapter(adapter: Path) -> dict[str, LoraUpdate]:
    """Read peft's adapter folder: the updates by the module path that training saw.

    Kinds of LoRA that would be merged wrongly are refused with a `UserError`.
    """
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    check_mergeable(config, file)
    factors: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            module, _, factor = name.removesuffix(".weight").rpartition(".")
            factors.setdefault(module.removeprefix("base_model.model."), {})[factor] = (
                tensors.get_tensor(name)
            )
    for module, parts in factors.items():
        if parts.keys() - {"lora_magnitude_vector"} != {"lora_A", "lora_B"}:
            raise UserError(
                f"the adapter holds {', '.join(sorted(parts))} for {module}: not a linear layer's",
                where=adapter,
                remedy="merge it with peft's merge_and_unload",
            )
    return {module: _build_update(module, parts, config) for module, parts in factors.items()}


def check_mergeable(config: dict[str, Any], file: Path) -> None:
    """Raise a `UserError` where peft's adapter configuration asks for more than is merged here."""
    defaults = PeftLoraConfig().to_dict()
    unsupported = [
        f"{name}: {value}"
        for name, value in config.items()
        if name not in MERGED_FIELDS | NEUTRAL_FIELDS and value and value != defaults.get(name)
    ]
    if unsupported:
        raise UserError(
            f"the adapter uses {', '.join(unsupported)}, which merging does not support",
            where=file,
            remedy="merge it with peft's merge_and_unload, or train without it",
        )
    init = config.get("init_lora_weights", True)
    if init not in BASE_KEEPING_INITS:
        raise UserError(
            f"the adapter belongs on a base that its first weights ({init}) were taken out of",
            where=file,
            remedy="save it as a plain LoRA: peft's save_pretrained with "
            "path_initial_model_for_weight_conversion",
        )


def check_unquantized(base: Path) -> None:
    """Raise a `UserError` for a base whose weights are not numbers that can be added to."""
    config = json.loads((base / "config.json").read_text())
    if config.get("quantization_config"):
        raise UserError(
            "the base's weights are quantized: an adapter cannot be merged into them",
            where=base,
            remedy="merge into the model's bf16 checkpoint",
        )


def merge_tensor(weight: torch.Tensor, update: LoraUpdate) -> tuple[torch.Tensor, float]:
    """`weight` (out, in) plus the update in fp32, rounded once to its dtype; and the cosine."""
    base = weight.float()
    wanted = base + update.scale * (update.b.float() @ update.a.float())
    if update.magnitude is not None:
        lengths = torch.linalg.norm(wanted, dim=1)
        wanted *= (update.magnitude.float() / lengths)[:, None]
    merged = wanted.to(weight.dtype, copy=True)
    applied = merged.float() - base
    wanted -= base
    cosine = torch.nn.functional.cosine_similarity(wanted.flatten(), applied.flatten(), dim=0)
    return merged, float(cosine)


def merge_shard(
    shard: Path, updates: dict[str, LoraUpdate]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """All tensors of a shard, those with an update merged; and the cosines of these."""
    tensors: dict[str, torch.Tensor] = {}
    cosines: dict[str, float] = {}
    with safe_open(shard, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            tensors[name] = file.get_tensor(name)
            if name in updates:
                tensors[name], cosines[name] = merge_tensor(tensors[name], updates[name])
    return tensors, cosines


def locate(module: str, names: set[str], base: Path) -> str:
    """The base tensor that a module's update belongs to."""
    candidates = [module] + [
        file_prefix + module.removeprefix(memory_prefix)
        for memory_prefix, file_prefix in RENAMED_PREFIXES
        if module.startswith(memory_prefix)
    ]
    for candidate in candidates:
        if f"{candidate}.weight" in names:
            return f"{candidate}.weight"
    raise UserError(
        f"the adapter updates {module}, which the base does not have",
        where=base,
        remedy="merge into the base that the adapter was trained on",
    )


def _build_update(
    module: str, parts: dict[str, torch.Tensor], config: dict[str, Any]
) -> LoraUpdate:
    """With the scale that peft gives this module: alpha / rank, or alpha / sqrt(rank)."""
    rank: int = parts["lora_A"].shape[0]
    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), module), config["lora_alpha"])
    return LoraUpdate(
        a=parts["lora_A"],
        b=parts["lora_B"],
        scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        magnitude=parts.get("lora_magnitude_vector"),
    )
