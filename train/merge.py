"""Merge the adapter into the base: tensor by tensor, summed in fp32, rounded once to bf16."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from configs.errors import UserError
from data.cache import new_folder

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
# What of the base folder belongs to a checkpoint besides the weights.
CARRIED_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
# A vision-language class keeps its language model under one name in the file, another in memory.
RENAMED_PREFIXES = (("model.language_model.", "language_model.model."),)


class LoraPair(NamedTuple):
    """Factors of one update: delta = scale · B @ A; A is (rank, in), B is (out, rank)."""

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True)
class LoraUpdate:
    """An adapter as read from disk; pairs by the module path that training saw."""

    scale: float
    pairs: dict[str, LoraPair]


def merge_adapter(base: Path, adapter: Path, merged: Path) -> dict[str, Any]:
    """Write base + adapter to `merged` in the base's layout; facts for the manifest.

    Every pair of the adapter must land on a tensor of the base, else nothing is written. The
    cosine between wanted and applied update shows what bf16 rounding has left of it, per tensor;
    1 is all. Memory: one shard of the base plus one tensor in fp32.
    """
    update = read_adapter(adapter)
    shards = list_shards(base)
    names = {name for shard in shards for name in tensor_names(shard)}
    pairs = {locate(module, names, base): pair for module, pair in update.pairs.items()}
    check_free_space(merged, needed=sum(shard.stat().st_size for shard in shards))
    cosines: dict[str, float] = {}
    with new_folder(merged) as folder:
        for shard in shards:
            merged_shard, shard_cosines = merge_shard(shard, pairs, update.scale)
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
    assert cosines.keys() == pairs.keys(), "an adapter pair was not merged"
    worst = min(cosines, key=cosines.__getitem__)
    return {
        "num_merged_tensors": len(cosines),
        "worst_update_cosine": round(cosines[worst], 4),
        "worst_update_tensor": worst,
    }


def read_adapter(adapter: Path) -> LoraUpdate:
    """Read peft's adapter folder; kinds of LoRA that would be merged wrongly are refused."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    unsupported = [
        name
        for name in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
        if config.get(name)
    ]
    if unsupported:
        raise UserError(
            f"the adapter uses {', '.join(unsupported)}, which merging does not support yet",
            where=adapter / "adapter_config.json",
            remedy="merge it with peft's merge_and_unload, or train without it",
        )
    root = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    factors: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            module, _, factor = name.removesuffix(".weight").rpartition(".")
            factors.setdefault(module.removeprefix("base_model.model."), {})[factor] = (
                file.get_tensor(name)
            )
    pairs = {module: LoraPair(f["lora_A"], f["lora_B"]) for module, f in factors.items()}
    return LoraUpdate(scale=config["lora_alpha"] / root, pairs=pairs)


def merge_tensor(weight: torch.Tensor, pair: LoraPair, scale: float) -> tuple[torch.Tensor, float]:
    """`weight` (out, in) plus the update in fp32, rounded once to its dtype; and the cosine."""
    base = weight.float()
    wanted = scale * (pair.b.float() @ pair.a.float())
    merged = (base + wanted).to(weight.dtype)
    applied = merged.float() - base
    cosine = torch.nn.functional.cosine_similarity(wanted.flatten(), applied.flatten(), dim=0)
    return merged, float(cosine)


def merge_shard(
    shard: Path, pairs: dict[str, LoraPair], scale: float
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """All tensors of a shard, those with a pair merged; and the cosines of these."""
    tensors: dict[str, torch.Tensor] = {}
    cosines: dict[str, float] = {}
    with safe_open(shard, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            tensors[name] = file.get_tensor(name)
            if name in pairs:
                tensors[name], cosines[name] = merge_tensor(tensors[name], pairs[name], scale)
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


def list_shards(base: Path) -> list[Path]:
    """The checkpoint's weight files, in order."""
    index = base / INDEX_FILE
    if index.exists():
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return [base / name for name in sorted(set(weight_map.values()))]
    return [base / SINGLE_FILE]


def tensor_names(shard: Path) -> list[str]:
    """Names of the tensors in one file."""
    with safe_open(shard, framework="pt") as file:
        return list(file.keys())


def check_free_space(folder: Path, *, needed: int) -> None:
    """Raise a `UserError` unless `needed` bytes are free where `folder` will stand."""
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f"{needed / 2**30:.1f} GiB are needed on this disk, {free / 2**30:.1f} GiB are free",
            where=folder,
            remedy="free some disk space, or put the runs elsewhere with --runs",
        )
