"""The merged weights in bitsandbytes' NF4, quantized straight from the sum."""

from pathlib import Path
from typing import Any

from train.merging.tensor_source import TensorSource
from train.nf4_checkpoint import plan_quantization, quantize_tensors
from train.weight_files import OnTensor

LEAVE_OUT = "leave it out of merge.artefacts; the GGUF files serve every architecture"
MORE_DISK = "free some disk space, or put the runs elsewhere with --runs"


def write_nf4(
    source: TensorSource, folder: Path, *, on_tensor: OnTensor | None = None
) -> dict[str, Any]:
    """Write the NF4 checkpoint of a source, whole or not at all; facts for the manifest.

    transformers rounds a model to bf16 while loading it and quantizes that; here the fp32 sum is
    quantized itself. The two differ only where rounding to bf16 moves a weight over the border
    between two of NF4's sixteen values, or moves the largest one of a block of 64, which scales the
    others. Memory: a tensor of the source, its 4-bit form and a file of 1 GiB. Errors: `UserError`
    for an architecture whose weights cannot be found by their names, and for a full disk.
    """
    plan = plan_quantization(source.checkpoint, remedy=LEAVE_OUT)
    quantize_tensors(
        source, folder, plan=plan, remedy=MORE_DISK, unrounded=True, on_tensor=on_tensor
    )
    return {"num_quantized_tensors": len(plan.linears)}
