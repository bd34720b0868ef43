"""What each stage writes to disk, from the configuration alone."""

from configs.schema import BaseBaseline, HubModel, PackageModel, RunConfig
from train.plan.memory import GIB, count_weights, num_adapter_bytes, num_optimizer_bytes
from train.plan.step import BF16, FP32, Step

# Bytes a number takes in a GGUF file: q8_0 has a 16-bit scale for 32 numbers.
GGUF_BYTES = {"q8_0": 34 / 32, "f16": 2, "bf16": 2}


def plan_disk(config: RunConfig, step: Step) -> dict[str, float]:
    """GiB by what is written; `total` is all of it, kept side by side.

    download: the bf16 weights, of a package the converted ones; it and nf4_checkpoint are in the
    cache, shared by all runs; the others are in the run directory. Rows are left out: what they
    take is known after `tunery prepare`, and little beside this.
    """
    model = step.architecture
    weights = BF16 * model.num_weights
    is_local = not isinstance(config.model.source, HubModel | PackageModel)
    quantized = count_weights(model, step.train)
    state = num_adapter_bytes(step) + num_optimizer_bytes(step, resident=False)
    gguf = GGUF_BYTES[config.merge.gguf] * (model.num_weights - model.num_vision_weights)
    num_files = 2 if isinstance(config.evaluation.baseline, BaseBaseline) else 1
    sizes = {
        "download": 0 if is_local else weights,
        "nf4_checkpoint": quantized.nf4 + quantized.bf16 if step.train.quantization == "nf4" else 0,
        # One more is written before the oldest goes.
        "checkpoints": (config.train.keep_checkpoints + 1) * state,
        "adapter": saved_adapter_bytes(step),
        "merged": weights,
        "artefacts": num_files * gguf,
    }
    return {name: size / GIB for name, size in sizes.items()} | {"total": sum(sizes.values()) / GIB}


def saved_adapter_bytes(step: Step) -> float:
    """PiSSA is saved as plain LoRA of twice its rank in fp32, anything else as it was trained."""
    if step.train.lora.init == "pissa":
        return FP32 * step.architecture.num_lora_weights(2 * step.train.lora.rank)
    return num_adapter_bytes(step)
