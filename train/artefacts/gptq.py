"""Quantize to W4A16 with rounding that the variant's own training rows decide (GPTQ).

It needs the whole model in host memory, and a GPU to be done in minutes; the algorithm (arXiv
2210.17323) is llmcompressor's, the files are written as `train.artefacts.w4a16` writes them.
"""

import importlib.util
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme
from loguru import logger as loguru
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from configs.errors import UserError
from data.tokens.load_tokenizer import load_tokenizer
from train.artefacts.w4a16 import (
    LEAVE_OUT,
    MORE_DISK,
    SCHEME,
    build_scheme,
    describe,
    find_group_size,
    named,
    num_bytes,
)
from train.nf4_checkpoint import names_in_memory, plan_quantization
from train.quantization import UNQUANTIZED_PARTS, model_class
from train.quantized_base import drop_vision
from train.quantized_folder import CheckpointTensors, write_quantized
from train.rows import Rows
from train.weight_files import OnTensor, check_free_space

# The calibrating library is an extra, imported by those alone who use it.
# ruff: noqa: PLC0415

logger = logging.getLogger(__name__)

EXTRA = "gptq"
Batch = dict[str, torch.Tensor]


def check_gptq() -> None:
    """Raise `UserError` where the calibrating library is not installed."""
    if importlib.util.find_spec("llmcompressor") is None:
        raise UserError(
            "calibrating W4A16 needs llmcompressor, which is not installed",
            where="merge",
            remedy=f'pip install "tunery[{EXTRA}]", or quantize without calibration',
        )


def write_w4a16_gptq(
    checkpoint: Path,
    folder: Path,
    *,
    rows: Rows,
    num_rows: int,
    max_length: int,
    on_tensor: OnTensor | None = None,
) -> dict[str, Any]:
    """Write the calibrated 4-bit checkpoint of a bf16 one to `folder`, whole or not at all.

    Returns facts for the manifest. rows: the variant's training rows, `num_rows` of which, without
    images and cut to `max_length` tokens, are run through the model block by block. All but the
    quantized layers is taken from the checkpoint's files as it is. Memory: the model in bf16 on the
    host; on a CUDA device, where there is one, a block and, for each of its layers, a Hessian
    (input width squared, fp32). Errors: `UserError` for a missing llmcompressor, rows without text,
    an architecture that cannot be quantized by its tensors' names, and a full disk.
    """
    check_gptq()
    plan = plan_quantization(checkpoint, remedy=LEAVE_OUT)
    scheme = build_scheme(find_group_size(plan, checkpoint))
    batches = build_batches(rows, num_rows=num_rows, max_length=max_length)
    needed = num_bytes(plan, scheme, checkpoint)
    check_free_space(folder, needed=needed, remedy=MORE_DISK)
    model = model_class(checkpoint).from_pretrained(checkpoint, dtype=torch.bfloat16)
    drop_vision(model)
    calibrate(model, scheme, batches, checkpoint=checkpoint)
    in_memory = names_in_memory(model, plan.linears, remedy=LEAVE_OUT)
    source = CheckpointTensors(checkpoint)

    def convert(name: str) -> dict[str, torch.Tensor]:
        if name in plan.linears:
            layer = model.get_submodule(in_memory[name].removesuffix(".weight"))
            return named(pack_layer(layer, scheme), name)
        tensor = source.read(name)
        return {name: tensor.to(plan.dtypes.get(name)) if tensor.is_floating_point() else tensor}

    write_quantized(
        source,
        folder,
        convert=convert,
        told=describe(scheme),
        num_bytes=needed,
        remedy=MORE_DISK,
        on_tensor=on_tensor,
    )
    assert scheme.weights is not None
    return {
        "group_size": scheme.weights.group_size,
        "num_quantized_tensors": len(plan.linears),
        "num_calibration_rows": len(batches),
        "num_calibration_tokens": sum(batch["input_ids"].numel() for batch in batches),
    }


def build_batches(rows: Rows, *, num_rows: int, max_length: int) -> list[Batch]:
    """`num_rows` rows from all over the file, one to a batch, shape (1, up to max_length)."""
    usable = [number for number in range(len(rows)) if number not in rows.images]
    if not usable:
        raise UserError(
            "no row without images to calibrate on",
            where=rows.file,
            remedy="quantize without calibration",
        )
    places = np.linspace(0, len(usable) - 1, min(num_rows, len(usable))).round().astype(int)
    batches = []
    for place in places:
        ids = torch.from_numpy(rows.input_ids[rows.span(usable[place])][:max_length].copy())
        ids = ids.long()[None]
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return batches


def calibrate(
    model: PreTrainedModel, scheme: QuantizationScheme, batches: list[Batch], *, checkpoint: Path
) -> None:
    """Round the weights of `model` in place, and give each quantized layer its scales."""
    arguments: dict[str, Any] = {
        "model": model,
        "dataset": DataLoader(batches, batch_size=None),  # type: ignore[arg-type]
        "num_calibration_samples": len(batches),
        "pipeline": "sequential",
        # Asked for, and of no use to rows that are tokenized.
        "processor": load_tokenizer(checkpoint),
    }
    with _quiet():
        from llmcompressor.entrypoints.oneshot import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier

        searched = scheme.model_copy(deep=True)
        # Scales with the least error, as without calibration: not what the largest weight asks for.
        searched.weights.observer = "memoryless_mse"
        recipe = GPTQModifier(
            config_groups={SCHEME: searched},
            ignore=[f"re:.*{part}.*" for part in UNQUANTIZED_PARTS],
        )
        oneshot(recipe=recipe, **arguments)


def pack_layer(layer: torch.nn.Module, scheme: QuantizationScheme) -> dict[str, torch.Tensor]:
    """The tensors of a calibrated layer by their names behind the layer's, in host memory."""
    assert isinstance(layer.weight, torch.Tensor)
    assert isinstance(layer.weight_scale, torch.Tensor)
    packed = PackedQuantizationCompressor.compress(
        {"weight": layer.weight.detach(), "weight_scale": layer.weight_scale.detach()}, scheme
    )
    return {part: tensor.cpu().contiguous() for part, tensor in packed.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep llmcompressor's logs and bars to itself, but pass on what it warns of.

    It logs to the standard output as soon as it is imported, and sets an environment variable.
    """
    warned: list[str] = []
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        from llmcompressor.logger import LoggerConfig, configure_logger

        configure_logger(LoggerConfig(console_log_level=None))
        # Its measurements have a level of their own above that of warnings.
        sink = loguru.add(
            lambda message: warned.append(message.record["message"]),
            filter=lambda record: record["level"].name in ("WARNING", "ERROR"),
        )
        try:
            yield
        finally:
            loguru.remove(sink)
            if before is None:
                del os.environ["TOKENIZERS_PARALLELISM"]
            else:
                os.environ["TOKENIZERS_PARALLELISM"] = before
    for message in warned:
        logger.warning("llmcompressor: %s", message)
