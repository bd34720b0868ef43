"""Quantize weights to 4 bits for vLLM (compressed-tensors W4A16), straight from the merged sum.

Only the sum's own numbers are rounded, and only once: no bf16 checkpoint stands in between, neither
on the disk nor in the arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compressed_tensors
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams

from configs.errors import UserError
from train.merging.tensor_source import TensorSource
from train.nf4_checkpoint import QuantizationPlan, plan_quantization, tensor_shapes
from train.quantization import UNQUANTIZED_PARTS
from train.quantized_folder import write_quantized
from train.weight_files import OnTensor, list_shards

SCHEME = "W4A16"
# Weights that share a scale, largest first: what vLLM's Marlin kernels can do.
GROUP_SIZES = (128, 64, 32)
# How far a group's range is drawn in, to find the scale with the least error. A grid five times as
# fine finds 0.6 % less error in three times the time.
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
# Errors are raised to this before they are summed, as llmcompressor does: more than squared, so
# that the few large weights, which matter most, are cut off less.
ERROR_POWER = 2.4
# Weights are quantized in pieces of whole rows of about this size: what a processor's cache holds.
PIECE_ELEMENTS = 2**18
LEAVE_OUT = "leave it out of merge.artefacts; the GGUF files serve every architecture"
MORE_DISK = "free some disk space, or put the runs elsewhere with --runs"


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight as compressed-tensors keeps it.

    tensors: by their names behind the layer's; squared_error and squared_norm: sums over all
    weights, of what rounding changed and of what there was.
    """

    tensors: dict[str, torch.Tensor]
    squared_error: float
    squared_norm: float

    @property
    def relative_error(self) -> float:
        """Norm of what rounding changed, as a share of the weight's norm."""
        return float((self.squared_error / self.squared_norm) ** 0.5) if self.squared_norm else 0.0


def write_w4a16(
    source: TensorSource,
    folder: Path,
    *,
    search: bool = True,
    on_tensor: OnTensor | None = None,
) -> dict[str, Any]:
    """Write the 4-bit checkpoint of a source, whole or not at all; facts for the manifest.

    The language model's linear layers are quantized, head, vision tower and projector stay as they
    are. search: find the scales with the least error, in fp32; without it a group's largest weight
    sets its scale, which is to the bit what llmcompressor's `model_free_ptq` writes of a bf16
    checkpoint. Memory: a tensor of the source, its 4-bit form and a file of 1 GiB. Errors:
    `UserError` for an architecture whose weights cannot be found by their names, for widths that no
    group size divides, and for a full disk.
    """
    plan = plan_quantization(source.checkpoint, remedy=LEAVE_OUT)
    scheme = build_scheme(find_group_size(plan, source.checkpoint))
    errors: dict[str, PackedWeight] = {}

    def convert(name: str) -> dict[str, torch.Tensor]:
        tensor = source.read(name)
        if name not in plan.linears:
            return {
                name: tensor.to(plan.dtypes.get(name)) if tensor.is_floating_point() else tensor
            }
        packed = pack_weight(tensor, scheme, search=search)
        errors[name] = PackedWeight({}, packed.squared_error, packed.squared_norm)
        return named(packed.tensors, name)

    write_quantized(
        source,
        folder,
        convert=convert,
        told=describe(scheme),
        num_bytes=num_bytes(plan, scheme, source.checkpoint),
        remedy=MORE_DISK,
        on_tensor=on_tensor,
    )
    return {"group_size": scheme.weights.group_size} | summarize(errors)


def find_group_size(plan: QuantizationPlan, checkpoint: Path) -> int:
    """The largest of `GROUP_SIZES` that divides the input width of every quantized layer.

    One for the whole model: engines fuse layers that share an input, and theirs must be the same.
    Errors: `UserError` where there is none.
    """
    shapes = {
        name: shape
        for shard in list_shards(checkpoint)
        for name, shape in tensor_shapes(shard).items()
    }
    widths = {name: shapes[name][1] for name in plan.linears}
    for size in GROUP_SIZES:
        if all(width % size == 0 for width in widths.values()):
            return size
    odd = min(name for name, width in widths.items() if width % GROUP_SIZES[-1])
    raise UserError(
        f"w4a16 needs layers whose input width is a multiple of {GROUP_SIZES[-1]}; that of "
        f"{odd} is {widths[odd]}",
        where=checkpoint,
        remedy=LEAVE_OUT,
    )


def build_scheme(group_size: int) -> QuantizationScheme:
    """4-bit integers around zero, `group_size` weights of a row to a scale."""
    scheme = preset_name_to_scheme(SCHEME, ["Linear"])
    assert scheme.weights is not None
    weights = scheme.weights.model_copy(update={"group_size": group_size})
    return scheme.model_copy(
        update={"weights": weights, "format": CompressionFormat.pack_quantized.value}
    )


def describe(scheme: QuantizationScheme) -> dict[str, Any]:
    """What config.json says about weights that were quantized by `scheme`.

    vLLM and transformers call the layers by different names, and those in the files are a third
    kind: what is left out is told by patterns that fit all of them.
    """
    config = QuantizationConfig(
        config_groups={SCHEME: scheme},
        format=CompressionFormat.pack_quantized.value,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=[f"re:.*{part}.*" for part in UNQUANTIZED_PARTS],
    )
    told = {
        "version": compressed_tensors.__version__,
        "quant_method": "compressed-tensors",
        "transform_config": {},
    }
    return {"dtype": "bfloat16", "quantization_config": told | config.model_dump(mode="json")}


def pack_weight(weight: torch.Tensor, scheme: QuantizationScheme, *, search: bool) -> PackedWeight:
    """Quantize `weight` (out, in), on a CUDA device where there is one, into host memory."""
    rows_per_piece = max(1, PIECE_ELEMENTS // weight.shape[1])
    pieces = [pack_rows(rows, scheme, search=search) for rows in weight.split(rows_per_piece)]
    tensors = {
        part: torch.cat([piece.tensors[part] for piece in pieces])
        for part in ("weight_packed", "weight_scale")
    }
    return PackedWeight(
        tensors | {"weight_shape": torch.tensor(weight.shape)},
        sum(piece.squared_error for piece in pieces),
        sum(piece.squared_norm for piece in pieces),
    )


def pack_rows(rows: torch.Tensor, scheme: QuantizationScheme, *, search: bool) -> PackedWeight:
    """Quantize some rows of a weight, all at once."""
    if torch.cuda.is_available():
        rows = rows.cuda()
    if search or rows.dtype != torch.bfloat16:
        rows = rows.float()
    assert scheme.weights is not None
    scale = find_scales(rows, scheme.weights, shrinks=SHRINKS if search else SHRINKS[:1])
    packed = PackedQuantizationCompressor.compress(
        {"weight": rows, "weight_scale": scale.to(rows.dtype)}, scheme
    )
    return PackedWeight(
        {"weight_packed": packed["weight_packed"].cpu(), "weight_scale": scale.cpu()},
        float(_errors(rows, scale, scheme.weights, power=2).sum()),
        float(rows.float().square().sum()),
    )


def find_scales(
    rows: torch.Tensor, args: QuantizationArgs, *, shrinks: Sequence[float]
) -> torch.Tensor:
    """The scale of each group with the least error, (rows, groups), rounded to bf16.

    Rounded before it is judged and used, since engines hold it in the activations' number format.
    """
    groups = rows.unflatten(-1, (-1, args.group_size))
    low, high = groups.amin(-1), groups.amax(-1)
    first, *others = shrinks
    best = _rounded_scales(low * first, high * first, args)
    if not others:
        return best
    least = _errors(rows, best, args, power=ERROR_POWER)
    for shrink in others:
        scale = _rounded_scales(low * shrink, high * shrink, args)
        error = _errors(rows, scale, args, power=ERROR_POWER)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


def named(tensors: dict[str, torch.Tensor], weight: str) -> dict[str, torch.Tensor]:
    """The parts of a packed weight by their names in the files; weight: its name, unquantized."""
    layer = weight.removesuffix("weight")
    return {f"{layer}{part}": tensor for part, tensor in tensors.items()}


def num_bytes(plan: QuantizationPlan, scheme: QuantizationScheme, checkpoint: Path) -> int:
    """About what the weights' files take up, and not less."""
    assert scheme.weights is not None
    assert scheme.weights.group_size is not None
    return plan.num_bytes(checkpoint, per_weight=1 / 2 + 2 / scheme.weights.group_size)


def summarize(packed: dict[str, PackedWeight]) -> dict[str, Any]:
    """What rounding to 4 bits cost, as shares of the weights' norms: of all, and of the worst."""
    worst = max(packed, key=lambda name: packed[name].relative_error)
    everything = PackedWeight(
        {},
        sum(one.squared_error for one in packed.values()),
        sum(one.squared_norm for one in packed.values()),
    )
    return {
        "num_quantized_tensors": len(packed),
        "relative_weight_error": round(everything.relative_error, 5),
        "worst_relative_weight_error": round(packed[worst].relative_error, 5),
        "worst_tensor": worst,
    }


def _rounded_scales(low: torch.Tensor, high: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    scale: torch.Tensor = calculate_qparams(low, high, args)[0]
    return scale.to(torch.bfloat16)


def _errors(
    rows: torch.Tensor, scale: torch.Tensor, args: QuantizationArgs, *, power: float
) -> torch.Tensor:
    """Sum over each group of what rounding changes, to the power; (rows, groups), in fp32."""
    rounded: torch.Tensor = fake_quantize(rows, scale.to(rows.dtype), None, args)
    errors = (rounded.float() - rows.float()).abs_().pow_(power)
    summed: torch.Tensor = errors.unflatten(-1, (-1, args.group_size)).sum(-1)
    return summed
