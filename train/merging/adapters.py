"""Adapters as they lie on disk: what each adds to which layer of the base."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig as PeftLoraConfig
from peft.utils.other import get_pattern_key

from configs.errors import UserError
from train.weight_files import read_tensor, tensor_names

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAGNITUDE = "lora_magnitude_vector"
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

    @property
    def shape(self) -> tuple[int, int]:
        """Of the layer's weight: (out, in)."""
        return self.b.shape[0], self.a.shape[1]


class WeightedAdapter(NamedTuple):
    """peft's adapter folder, and what its update is multiplied by."""

    folder: Path
    weight: float = 1.0


class AdapterUpdates(Mapping[str, LoraUpdate]):
    """Updates by the module path that training saw, each read from its file when it is asked for.

    So that an adapter takes no more memory than one of its layers, whatever the number of layers.
    """

    def __init__(self, readers: Mapping[str, Callable[[], LoraUpdate]]) -> None:
        self._readers = readers

    def __getitem__(self, module: str) -> LoraUpdate:
        return self._readers[module]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def read_adapters(adapters: Sequence[WeightedAdapter]) -> AdapterUpdates:
    """The sum of all adapters' weighted updates.

    Updates of one layer become one, of the sum of their ranks and of scale 1, in fp32. Errors:
    `UserError` for kinds of LoRA that would be merged wrongly, for adapters of different bases, and
    for sums that DoRA, which is not linear in its update, has no meaning for.
    """
    if len(adapters) == 1 and adapters[0].weight == 1:
        return read_adapter(adapters[0].folder)
    opened = [(adapter, read_adapter(adapter.folder)) for adapter in adapters]
    gathered: dict[str, list[Callable[[], LoraUpdate]]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for adapter, updates in opened:
        for module, update in updates.items():
            _check_fits_the_sum(adapter, module, update, shapes.setdefault(module, update.shape))
            gathered.setdefault(module, []).append(partial(_weighted, updates, module, adapter))
    return AdapterUpdates({module: partial(_join, parts) for module, parts in gathered.items()})


def read_adapter(adapter: Path) -> AdapterUpdates:
    """Look into peft's adapter folder; a `UserError` for LoRA that would be merged wrongly."""
    file = adapter / ADAPTER_CONFIG
    if not file.is_file():
        raise UserError(
            f"not an adapter (it has no {ADAPTER_CONFIG})",
            where=adapter,
            remedy="name a folder that peft's save_pretrained or `tunery train` wrote",
        )
    config = json.loads(file.read_text())
    check_mergeable(config, file)
    weights = adapter / ADAPTER_WEIGHTS
    factors: dict[str, dict[str, str]] = {}
    for name in tensor_names(weights):
        module, _, factor = name.removesuffix(".weight").rpartition(".")
        factors.setdefault(module.removeprefix("base_model.model."), {})[factor] = name
    for module, names in factors.items():
        if names.keys() - {MAGNITUDE} != {"lora_A", "lora_B"}:
            raise UserError(
                f"the adapter holds {', '.join(sorted(names))} for {module}: not a linear layer's",
                where=adapter,
                remedy="merge it with peft's merge_and_unload",
            )
    return AdapterUpdates(
        {m: partial(_read_update, weights, m, names, config) for m, names in factors.items()}
    )


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


def _read_update(
    file: Path, module: str, names: Mapping[str, str], config: Mapping[str, Any]
) -> LoraUpdate:
    """With the scale that peft gives this module: alpha / rank, or alpha / sqrt(rank)."""
    parts = {factor: read_tensor(file, name) for factor, name in names.items()}
    rank: int = parts["lora_A"].shape[0]
    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), module), config["lora_alpha"])
    return LoraUpdate(
        a=parts["lora_A"],
        b=parts["lora_B"],
        scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        magnitude=parts.get(MAGNITUDE),
    )


def _check_fits_the_sum(
    adapter: WeightedAdapter, module: str, update: LoraUpdate, shape: tuple[int, int]
) -> None:
    """shape: of the same layer's update in the adapters before."""
    if update.magnitude is not None:
        raise UserError(
            "a DoRA adapter can be merged only alone and with weight 1",
            where=adapter.folder,
            remedy="leave out the others, or train without train.lora.dora",
        )
    if update.shape != shape:
        raise UserError(
            f"the adapters do not belong to one base: {module} has another size here",
            where=adapter.folder,
            remedy="merge adapters that were trained on the same base",
        )


def _weighted(updates: AdapterUpdates, module: str, adapter: WeightedAdapter) -> LoraUpdate:
    update = updates[module]
    return update._replace(scale=adapter.weight * update.scale)


def _join(parts: Sequence[Callable[[], LoraUpdate]]) -> LoraUpdate:
    """One update for the sum: B = [s₁B₁ s₂B₂ …], A = [A₁; A₂; …]."""
    updates = [read() for read in parts]
    return LoraUpdate(
        a=torch.cat([update.a.float() for update in updates]),
        b=torch.cat([update.scale * update.b.float() for update in updates], dim=1),
        scale=1.0,
    )
