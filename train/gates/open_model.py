"""Load what the gates look at: any checkpoint folder, and base with adapters that are not merged.

Weights that do not fit on the device stay in host memory, and those that do not fit there are read
from their files when their layer comes: so a model of 47 GB is scored on a 24 GB card or a laptop.
"""

import gc
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from transformers import PreTrainedModel

from configs.errors import UserError
from train.gates.packed_linear import settle_packed
from train.gates.transformers_scorer import TOKENS_PER_FORWARD, TransformersScorer
from train.plain_checkpoint import resolve_plain
from train.quantization import model_class, read_quantization
from train.quantized_base import drop_vision, keep_trainable_layout, load_base
from train.weight_files import list_shards

logger = logging.getLogger(__name__)

# Weights up to this, in bf16, are computed with in fp32.
SMALL_BYTES = 2 * 2**30
# Where weights are read from their files, each forward pass reads all of them: few large ones.
TOKENS_PER_OFFLOADED_FORWARD = 4 * TOKENS_PER_FORWARD


@contextmanager
def open_checkpoint(
    folder: Path, *, max_memory: dict[int | str, int] | None = None
) -> Iterator[TransformersScorer]:
    """The model of a folder, as its config.json says it is quantized or not; freed at the end.

    A vision-language checkpoint is opened as its own class and its vision tower dropped.
    max_memory: bytes to be used by device number and "cpu"; None: what is free.
    """
    with TemporaryDirectory(prefix="tunery-offload-") as offload:
        model = load_model(folder, Path(offload), max_memory=max_memory)
        try:
            yield TransformersScorer(
                model,
                folder,
                tokens_per_forward=(
                    TOKENS_PER_OFFLOADED_FORWARD if is_offloaded(model) else TOKENS_PER_FORWARD
                ),
            )
        finally:
            # The caller still holds the scorer, which would keep the weights alive.
            _empty(model)


@contextmanager
def open_with_adapters(
    checkpoint: Path,
    adapters: Sequence[tuple[Path, float]],
    *,
    base: Literal["bf16", "nf4"],
    max_memory: dict[int | str, int] | None = None,
) -> Iterator[TransformersScorer]:
    """Base and adapters side by side, as peft runs them: what merging is held to.

    adapters: folders and the weights that their scales are multiplied with; all are active.
    base: the checkpoint's weights in bf16, or the NF4 ones that training sees. Errors: `UserError`
    for a DoRA adapter beside others, with another weight than 1, or on a base that does not fit
    into memory; those of `load_base`.
    """
    with TemporaryDirectory(prefix="tunery-offload-") as offload:
        if base == "nf4":
            model = load_base(checkpoint, quantization="nf4")
            if is_small(checkpoint):
                widen(model)
        else:
            model = load_model(resolve_plain(checkpoint), Path(offload), max_memory=max_memory)
        num_tokens = TOKENS_PER_OFFLOADED_FORWARD if is_offloaded(model) else TOKENS_PER_FORWARD
        try:
            adapted = attach_adapters(model, adapters) if adapters else model
            yield TransformersScorer(adapted, checkpoint, tokens_per_forward=num_tokens)
        finally:
            _empty(model)


def load_model(
    folder: Path, offload: Path, *, max_memory: dict[int | str, int] | None = None
) -> PreTrainedModel:
    """The model of a checkpoint folder without its vision tower, spread over what memory there is.

    Where everything fits on one device this is a plain load, without hooks.
    """
    # compressed-tensors draws bars of its own on the standard error; what it raises still comes.
    with redirect_stderr(io.StringIO()):
        model: PreTrainedModel = model_class(folder).from_pretrained(
            folder,
            dtype=torch.float32 if is_small(folder) else torch.bfloat16,
            device_map="auto",
            max_memory=max_memory,
            offload_folder=offload,
        )
    model.requires_grad_(False)
    # The same kernel as the reference's, so that no difference between them is one of kernels.
    keep_trainable_layout(model)
    settle_packed(model, unpack=is_small(folder) and not is_offloaded(model))
    if is_small(folder):
        widen(model)
    drop_vision(model)
    if is_offloaded(model):
        logger.warning(
            "%s does not fit into memory: its weights are read anew in each pass, which is slow",
            folder,
        )
    return model


def is_small(folder: Path) -> bool:
    """Whether the model of a folder is computed in fp32.

    In bf16 the rounding of activations is most of what a merge differs by (`train.gates.limits`).
    For large models there is no memory for more, and their distributions feel it less.
    """
    num_bytes = sum(shard.stat().st_size for shard in list_shards(folder))
    return num_bytes * (1 if read_quantization(folder) is None else 4) <= SMALL_BYTES


def widen(model: PreTrainedModel) -> None:
    """Have all that is computed be fp32; 4-bit weights stay as they are."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = torch.float32
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point() and not tensor.is_meta:
                tensor.data = tensor.data.float()


def is_offloaded(model: torch.nn.Module) -> bool:
    """Whether some of its weights stay on disk."""
    return "disk" in (getattr(model, "hf_device_map", None) or {}).values()


def attach_adapters(model: PreTrainedModel, adapters: Sequence[tuple[Path, float]]) -> PeftModel:
    """peft's adapters on a loaded model, all of them active; `model` is changed."""
    is_spread = hasattr(model, "hf_device_map")
    if is_spread:
        # peft would take away the hooks that fetch weights, and spread the model again under names
        # that vision-language checkpoints do not have in their files.
        del model.hf_device_map
    (first, _), *others = adapters
    names = [str(number) for number in range(len(adapters))]
    adapted = PeftModel.from_pretrained(model, first, adapter_name="0", low_cpu_mem_usage=is_spread)
    for name, (folder, _) in zip(names[1:], others, strict=True):
        adapted.load_adapter(folder, adapter_name=name, low_cpu_mem_usage=is_spread)
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    _check_dora(layers, adapters)
    for layer in layers:
        for name, (_, weight) in zip(names, adapters, strict=True):
            layer.set_scale(name, weight)
        _give_memory(layer)
    if is_spread:
        # Those of layers that are on disk were left without numbers.
        for name, (folder, _) in zip(names, adapters, strict=True):
            weights = load_peft_weights(str(folder), device="cpu")
            set_peft_model_state_dict(adapted, weights, adapter_name=name)
    tuner: Any = adapted.base_model
    tuner.set_adapter(names)
    adapted.eval()
    return adapted


def _check_dora(layers: Sequence[LoraLayer], adapters: Sequence[tuple[Path, float]]) -> None:
    has_dora = any(any(layer.use_dora.values()) for layer in layers)
    if has_dora and (len(adapters) > 1 or adapters[0][1] != 1):
        raise UserError(
            "a DoRA adapter sets the lengths of a weight's rows: it cannot be weighted or summed",
            where=adapters[0][0],
            remedy="merge it alone and with weight 1",
        )
    if has_dora and any(parameter.is_meta for layer in layers for parameter in _weights(layer)):
        raise UserError(
            "a DoRA adapter needs the base's weights in memory, and they do not fit",
            where=adapters[0][0],
            remedy="set merge.base: nf4, or merge on a machine with more memory",
        )


def _weights(layer: LoraLayer) -> Iterator[torch.Tensor]:
    yield from layer.get_base_layer().parameters()


def _give_memory(layer: LoraLayer) -> None:
    """Put a layer's adapters where it computes, also where its own weights are elsewhere."""
    base = layer.get_base_layer()
    device = getattr(getattr(base, "_hf_hook", None), "execution_device", None)
    if device is None:
        return
    for parts in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
        is_empty = any(parameter.is_meta for parameter in parts.parameters())
        parts.to_empty(device=device) if is_empty else parts.to(device)


def _empty(model: PreTrainedModel) -> None:
    """Free the weights of a model that others may still refer to."""
    for module in model.modules():
        module._parameters.clear()
        module._buffers.clear()
        if hasattr(module, "_hf_hook"):
            del module._hf_hook
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
