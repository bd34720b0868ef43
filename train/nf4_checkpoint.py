"""Quantize a checkpoint to NF4 once, so that every later start reads a quarter of the bytes.

It goes tensor by tensor: what has to be in memory does not grow with the model. The result is in
transformers' own bitsandbytes format, bit for bit what quantizing at every load would give.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState, quantize_4bit, quantize_blockwise
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.quantizers.auto import AutoHfQuantizer

from configs.errors import UserError
from train.merging.tensor_source import TensorSource
from train.quantization import (
    check_is_nf4,
    check_quantized,
    model_class,
    nf4_recipe,
    read_quantization,
)
from train.quantized_folder import CheckpointTensors, write_quantized
from train.weight_files import (
    MORE_CACHE,
    OnTensor,
    list_shards,
    made_once,
    tensor_names,
)

# Weights are quantized in pieces of this size, a multiple of every block size: bitsandbytes'
# temporaries are some twelve times as large as what it is given.
PIECE_ELEMENTS = 2**20
BLOCK_ELEMENTS = 64
NESTED_BLOCK_ELEMENTS = 256
# 4 bits, a byte a block, 4 bytes a block of blocks.
BYTES_PER_WEIGHT = 1 / 2 + (1 + 4 / NESTED_BLOCK_ELEMENTS) / BLOCK_ELEMENTS
# What to do about an architecture whose weights cannot be quantized before they are trained on.
WITHOUT_NF4 = "take a checkpoint that is quantized to NF4 already, or set train.quantization: none"


def resolve_nf4(checkpoint: Path, *, on_tensor: OnTensor | None = None) -> Path:
    """The NF4 checkpoint of a bf16, fp16 or fp32 checkpoint folder, made at first use and kept.

    A folder that holds NF4 weights already is returned as it is. on_tensor: told of every tensor
    that is done. Errors: `UserError` for weights quantized otherwise, for an architecture whose
    weights are not in the files as they are in memory, and for a full disk. Peak memory: the
    largest tensor and a file of 1 GiB.
    """
    if read_quantization(checkpoint) is not None:
        check_is_nf4(checkpoint)
        return checkpoint

    def make(folder: Path) -> None:
        quantize_checkpoint(checkpoint, folder, on_tensor=on_tensor)

    recipe = json.dumps(nf4_recipe().to_dict(), sort_keys=True) + bitsandbytes.__version__
    return made_once(checkpoint, kind="nf4", recipe=recipe, make=make)


@dataclass(frozen=True)
class QuantizationPlan:
    """What becomes of a checkpoint's tensors, by their names in its files.

    linears: the weights that are quantized; dtypes: the number formats of floating-point tensors
    when they are loaded as bf16.
    """

    linears: frozenset[str]
    dtypes: dict[str, torch.dtype]

    def num_bytes(self, checkpoint: Path, *, per_weight: float) -> int:
        """About what the files take up, and not less; per_weight: bytes of a quantized weight."""
        shapes = {
            name: shape
            for shard in list_shards(checkpoint)
            for name, shape in tensor_shapes(shard).items()
        }
        needed = 0
        for name, shape in shapes.items():
            plain = self.dtypes.get(name, torch.float).itemsize
            # With the code books, the shape and the header.
            needed += (
                int(math.prod(shape) * (per_weight if name in self.linears else plain)) + 2**12
            )
        return needed


def quantize_checkpoint(
    checkpoint: Path, folder: Path, *, on_tensor: OnTensor | None = None
) -> None:
    """Write the NF4 checkpoint of `checkpoint` to `folder`, whole or not at all."""
    quantize_tensors(
        CheckpointTensors(checkpoint),
        folder,
        plan=plan_quantization(checkpoint),
        remedy=MORE_CACHE,
        on_tensor=on_tensor,
    )


def quantize_tensors(
    source: TensorSource,
    folder: Path,
    *,
    plan: QuantizationPlan,
    remedy: str,
    unrounded: bool = False,
    on_tensor: OnTensor | None = None,
) -> None:
    """Write the NF4 checkpoint of a source's tensors to `folder`, whole or not at all.

    unrounded: quantize the numbers that the source gives; without it they are rounded to bf16
    first, which is what transformers does when it quantizes a model while loading it. Errors:
    `UserError` with `remedy` where the disk is too small.
    """
    write_quantized(
        source,
        folder,
        convert=lambda name: convert_tensor(source, name, plan, unrounded=unrounded),
        told={"dtype": "bfloat16", "quantization_config": nf4_recipe().to_dict()},
        num_bytes=plan.num_bytes(source.checkpoint, per_weight=BYTES_PER_WEIGHT),
        remedy=remedy,
        on_tensor=on_tensor,
    )


def plan_quantization(checkpoint: Path, *, remedy: str = WITHOUT_NF4) -> QuantizationPlan:
    """Decide by the model itself, built without weights, what is quantized and what is not.

    Errors: `UserError` with `remedy` where a layer's weight is not in the files as it is in memory.
    """
    model = build_skeleton(checkpoint)
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    replace_linears(model)
    layers = {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    if any(model.get_submodule(name).source_cls is not torch.nn.Linear for name in layers):
        raise UserError(
            "this architecture's weights lie the other way round in its files",
            where=checkpoint,
            remedy=remedy,
        )
    names = [name for shard in list_shards(checkpoint) for name in tensor_names(shard)]
    in_memory = names_in_memory(model, names, remedy=remedy)
    weights = {name: in_memory[name].removesuffix(".weight") for name in names}
    linears = frozenset(
        name for name in names if weights[name] in layers and weights[name] != in_memory[name]
    )
    missing = layers - {weights[name] for name in linears}
    if missing:
        raise UserError(
            f"the checkpoint has no weights for {len(missing)} layers, {min(missing)} among them",
            where=checkpoint,
            remedy="fetch the model anew",
        )
    return QuantizationPlan(
        linears, {name: dtypes[in_memory[name]] for name in names if in_memory[name] in dtypes}
    )


def build_skeleton(checkpoint: Path) -> PreTrainedModel:
    """The model without weights, in the number formats that loading it as bf16 gives."""
    config = AutoConfig.from_pretrained(checkpoint)
    with torch.device("meta"):
        model: PreTrainedModel = model_class(checkpoint).from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.bfloat16
        )
    return model


def replace_linears(model: PreTrainedModel) -> None:
    """Put a `Linear4bit` where transformers does when it quantizes a model while loading it."""
    quantizer = AutoHfQuantizer.from_config(nf4_recipe(), pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None)
    check_quantized(model)


def names_in_memory(
    model: PreTrainedModel, names: Iterable[str], *, remedy: str = WITHOUT_NF4
) -> dict[str, str]:
    """What each tensor of the files is called in memory, by the rules that transformers loads by.

    Errors: `UserError` with `remedy` for a tensor that is not loaded as it is, but fused or split.
    """
    state = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found: dict[str, str] = {}
    for name in names:
        found[name], converted_by = rename_source_key(
            name, renamings, converters, model.base_model_prefix, state
        )
        if found[name] not in state and name in state:
            found[name] = name
        elif converted_by is not None:
            raise UserError(
                f"this architecture's weights are rearranged while loading ({name} is one)",
                where=model.config.name_or_path,
                remedy=remedy,
            )
    return found


def convert_tensor(
    source: TensorSource, name: str, plan: QuantizationPlan, *, unrounded: bool = False
) -> dict[str, torch.Tensor]:
    """What the NF4 checkpoint holds for one tensor; quantized on a CUDA device where there is one.

    As a function of its own, so that nothing of a tensor is held when the next one is read.
    """
    tensor = source.read(name)
    is_linear = name in plan.linears
    if tensor.is_floating_point() and not (is_linear and unrounded):
        tensor = tensor.to(plan.dtypes.get(name))
    if not is_linear:
        return {name: tensor}
    return quantize_weight(tensor.cuda() if torch.cuda.is_available() else tensor, name)


def quantize_weight(weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    """The tensors that stand for `weight` (out, in) in a bitsandbytes checkpoint, in host memory.

    Blocks of 64 weights share a scale, and 256 scales one of their own (QLoRA, §3). Whatever
    number format `weight` is in, it comes back in bf16.
    """
    packed, scales = [], []
    for piece in weight.flatten().split(PIECE_ELEMENTS):
        quantized, state = quantize_4bit(piece, blocksize=BLOCK_ELEMENTS, quant_type="nf4")
        packed.append(quantized.cpu())
        scales.append(state.absmax)
    absmax = torch.cat(scales)
    offset = absmax.mean()
    small_absmax, nested = quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK_ELEMENTS)
    whole = QuantState(
        absmax=small_absmax,
        shape=weight.shape,
        dtype=torch.bfloat16,
        blocksize=BLOCK_ELEMENTS,
        code=state.code,
        quant_type="nf4",
        offset=offset,
        state2=nested,
    )
    parts = {f"{name}.{part}": value for part, value in whole.as_dict(packed=True).items()}
    # Cloned, since the code books are the same tensors for all weights.
    return {name: torch.cat(packed)} | {part: value.cpu().clone() for part, value in parts.items()}


def tensor_shapes(shard: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in one file, without reading them."""
    with safe_open(shard, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
