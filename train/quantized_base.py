"""Load the frozen base model, 4-bit or bf16, and prove that it is what was asked for."""

import logging
from pathlib import Path
from typing import Literal

import torch
from bitsandbytes.nn import Linear4bit
from transformers import PreTrainedModel

from configs.errors import UserError
from train.host_embedding import check_untied, offload_input_embedding
from train.nf4_checkpoint import resolve_nf4
from train.processes import local_rank
from train.quantization import (
    VISION_PARTS,
    check_quantized,
    is_unquantized,
    model_class,
    read_quantization,
)

logger = logging.getLogger(__name__)
# bitsandbytes logs, once a load, that an optional kernel package is absent on the CPU.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def load_base(
    checkpoint: Path,
    *,
    quantization: Literal["nf4", "none"],
    with_images: bool = False,
    offload_embedding: bool = False,
    shared_out: bool = False,
) -> PreTrainedModel:
    """The base in bf16, or with its linear layers in NF4 with double quantization (QLoRA, §3).

    On a CUDA device where there is one, else on the CPU. All parameters are frozen. with_images:
    without them a vision tower and its projector are dropped. offload_embedding: keep the input
    embedding in host memory (CUDA). shared_out: hold 4-bit weights so that FSDP2 can cut them into
    shares. Errors: those of `resolve_nf4`; a `UserError` for quantized
    weights with quantization `none`, for a ready 4-bit checkpoint whose vision tower or head is
    quantized, and for an embedding that is offloaded and the head too.
    """
    is_ready = read_quantization(checkpoint) is not None
    if is_ready and quantization == "none":
        raise UserError(
            "the model's weights are quantized, and quantization: none asks for bf16 weights",
            where=checkpoint / "config.json",
            remedy="set train.quantization: nf4, or take the model's bf16 checkpoint",
        )
    folder = resolve_nf4(checkpoint) if quantization == "nf4" else checkpoint
    model: PreTrainedModel = model_class(folder).from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": training_device()}
    )
    model.requires_grad_(False)
    if quantization == "nf4":
        if is_ready:
            check_ready(model, checkpoint)
        else:
            check_quantized(model)
        keep_trainable_layout(model)
        if shared_out:
            store_as_floats(model)
    _tell_whether_tied(model)
    if not with_images:
        drop_vision(model)
    if offload_embedding:
        _offload_embedding(model)
    return model


def training_device() -> torch.device:
    """This process's CUDA device, the first one where it trains alone; else the CPU."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def check_ready(model: PreTrainedModel, checkpoint: Path) -> None:
    """Raise a `UserError` unless a model that came 4-bit can be trained on.

    Its maker may have left some layers of the language model in bf16.
    """
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    quantized = [name for name, module in linears.items() if isinstance(module, Linear4bit)]
    wrong = [name for name in quantized if is_unquantized(name)]
    if wrong or not quantized:
        raise UserError(
            f"the 4-bit checkpoint has {wrong[0]} quantized, which harms it more than it saves"
            if wrong
            else "the checkpoint says that it is 4-bit, and none of its layers is",
            where=checkpoint,
            remedy="take the model's bf16 checkpoint: it is quantized to NF4 once, at first use",
        )


def keep_trainable_layout(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking the weights for inference at the first validation.

    On CPUs with AVX512-BF16 a `Linear4bit` in evaluation mode repacks its weight for good, and the
    kernel for that layout has no backward pass: after the first validation no gradient would flow
    through the base any more, with nothing but a warning to show for it.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            # A checkpoint that came 4-bit may ask for fp16 or fp32, whatever the rest is in.
            module.compute_dtype = torch.bfloat16


def store_as_floats(model: PreTrainedModel) -> None:
    """Have the packed 4-bit weights lie in bf16 numbers, byte for byte: FSDP2 shares out no others.

    bitsandbytes' own setting for it (`bnb_4bit_quant_storage`) acts when weights are quantized,
    which these have been, once, for all strategies alike.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.weight.data = module.weight.data.view(-1).view(torch.bfloat16)[:, None]
            module.quant_storage = torch.bfloat16


def drop_vision(model: PreTrainedModel) -> None:
    """Free the vision tower and its projector, where the model has them."""
    inner = model.base_model
    for name in VISION_PARTS:
        if hasattr(inner, name):
            setattr(inner, name, None)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _offload_embedding(model: PreTrainedModel) -> None:
    check_untied(model)
    if training_device().type == "cuda":
        offload_input_embedding(model)
    else:
        logger.warning("train.offload_embedding has no effect: there is no CUDA device")


def _tell_whether_tied(model: PreTrainedModel) -> None:
    """Have the configuration say what the weights are: Mistral Small 3.1's own says nothing.

    The class takes that for tied, and whoever ties the weights anew would overwrite the head.
    """
    head = model.get_output_embeddings()
    is_tied = head is not None and head.weight is model.get_input_embeddings().weight
    model.config.tie_word_embeddings = is_tied
