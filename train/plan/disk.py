"""What each stage writes to disk, from the configuration alone."""

from configs.schema import ArtefactFormat, HubModel, PackageModel, RunConfig
from train.plan.memory import GIB, count_weights, num_adapter_bytes, num_optimizer_bytes
from train.plan.step import BF16, FP32, Step

# Bytes a number takes in a GGUF file: q8_0 has a scale of 16 bits for 32 numbers, q6_k one of 8 for
# 16 and one of 16 for 256; the mixtures, as llama.cpp makes them of a 24B.
GGUF_BYTES: dict[ArtefactFormat, float] = {
    "f16": 2,
    "q8_0": 34 / 32,
    "q6_k": 210 / 256,
    "q5_k_m": 0.711,
    "q4_k_m": 0.608,
}
# These are quantized out of a temporary file in bf16.
MIXTURES: tuple[ArtefactFormat, ...] = ("q6_k", "q5_k_m", "q4_k_m")


def plan_disk(config: RunConfig, step: Step) -> dict[str, float]:
    """GiB by what is written; `total` is all of it, kept side by side.

    download: the bf16 weights, of a package the converted ones; it and nf4_checkpoint are in the
    cache, shared by all runs; the others are in the run directory. merged is there while artefacts
    are made, and kept where it is one of them; conversion goes with the merge stage's end. Rows are
    left out: what they take is known after `tunery prepare`, and little beside this.
    """
    model = step.architecture
    weights = BF16 * model.num_weights
    is_local = not isinstance(config.model.source, HubModel | PackageModel)
    quantized = count_weights(model, step.train)
    state = num_adapter_bytes(step) + num_optimizer_bytes(step, resident=False)
    as_nf4 = count_weights(model, step.train.model_copy(update={"quantization": "nf4"}))
    num_text_weights = model.num_weights - model.num_vision_weights
    ggufs = [name for name in config.merge.artefacts if name in GGUF_BYTES]
    if config.needs_base:
        ggufs.append(config.merge.served)
    num_folders = len({"w4a16", "nf4"} & set(config.merge.artefacts))
    sizes = {
        "download": 0 if is_local else weights,
        "nf4_checkpoint": quantized.nf4 + quantized.bf16 if step.train.quantization == "nf4" else 0,
        # One more is written before the oldest goes.
        "checkpoints": (config.train.keep_checkpoints + 1) * state,
        "adapter": saved_adapter_bytes(step),
        "merged": weights,
        "artefacts": sum(GGUF_BYTES[name] * num_text_weights for name in ggufs)
        + BF16 * model.num_vision_weights
        # Both 4-bit forms have about the same size: 4 bits and a scale.
        + num_folders * (as_nf4.nf4 + as_nf4.bf16),
        "conversion": BF16 * num_text_weights if set(MIXTURES) & set(ggufs) else 0,
    }
    return {name: size / GIB for name, size in sizes.items()} | {"total": sum(sizes.values()) / GIB}


def saved_adapter_bytes(step: Step) -> float:
    """PiSSA is saved as plain LoRA of twice its rank in fp32, anything else as it was trained."""
    if step.train.lora.init == "pissa":
        return FP32 * step.architecture.num_lora_weights(2 * step.train.lora.rank)
    return num_adapter_bytes(step)
