"""The adapter alone as a GGUF file, which llama.cpp applies to the base's at run time."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch

from configs.errors import UserError
from data.cache import WRITE_ERRORS, disk_error
from train.artefacts.gguf_header import (
    Field,
    Header,
    TensorPlace,
    ValueType,
    pack_header,
    padding,
    text_field,
)
from train.merging.adapters import LoraUpdate, WeightedAdapter, read_adapters
from train.quantization import is_vision

# Model types that are converted as Llama is, with the rows of queries and keys in another order.
LLAMA_LIKE = ("llama", "mistral", "mistral3")


class _Shape(NamedTuple):
    """What of a model's configuration decides where updates belong."""

    num_layers: int
    num_heads: int
    num_kv_heads: int


def make_lora_gguf(
    adapters: Sequence[WeightedAdapter], checkpoint: Path, file: Path, *, name: str
) -> None:
    """Write peft's adapters, or their sum, for the GGUF that `make_gguf` makes of `checkpoint`.

    llama.cpp adds alpha / rank · B @ A with one alpha for all layers, so what peft scales otherwise
    (rsLoRA, patterns of alphas and ranks) is folded into B; factors are written in fp32. name: for
    the file's metadata. `file` is gone where this fails. Errors: `UserError` for DoRA, for updates
    outside the language model, for model families that are laid out otherwise, and for a full disk.
    """
    shape = _read_shape(checkpoint)
    updates = read_adapters(adapters)
    first = next(iter(updates.values()))
    # llama.cpp takes an alpha of zero for none at all.
    alpha = first.scale * first.a.shape[0] or 1.0
    where = ", ".join(str(adapter.folder) for adapter in adapters)
    fields = {
        "general.architecture": text_field(gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA]),
        "general.type": text_field(gguf.GGUFType.ADAPTER),
        "general.name": text_field(name),
        gguf.Keys.Adapter.TYPE: text_field("lora"),
        gguf.Keys.Adapter.LORA_ALPHA: Field(ValueType.FLOAT32, struct.pack("<f", alpha)),
    }
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.num_layers)
    values: dict[str, np.ndarray] = {}
    for module, update in updates.items():
        tensor = _tensor_name(module, names, where)
        for factor, factor_values in _fold(tensor, update, alpha, shape, where).items():
            values[f"{tensor}.{factor}"] = factor_values
    try:
        _write(file, fields, values)
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
            raise disk_error(error, file) from error
        raise


def interleave(rows: torch.Tensor, *, num_heads: int) -> torch.Tensor:
    """Rows (num_heads · head_dim, n) of queries or keys in llama.cpp's order.

    Rotary embeddings turn pairs of rows: transformers pairs a head's first half with its second,
    llama.cpp each row with its neighbour.
    """
    halves = rows.reshape(num_heads, 2, -1, rows.shape[1])
    return halves.transpose(1, 2).reshape(rows.shape).contiguous()


def _read_shape(checkpoint: Path) -> _Shape:
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") not in LLAMA_LIKE:
        raise UserError(
            f"an adapter of a model of type {config.get('model_type')} cannot be exported for "
            "llama.cpp",
            where=checkpoint / "config.json",
            remedy="serve the merged GGUF file instead; exported are those of "
            + ", ".join(LLAMA_LIKE),
        )
    text = config.get("text_config", config)
    num_heads = text["num_attention_heads"]
    return _Shape(text["num_hidden_layers"], num_heads, text.get("num_key_value_heads", num_heads))


def _tensor_name(module: str, names: gguf.TensorNameMap, where: str) -> str:
    """llama.cpp's name of the weight that a module of the language model holds."""
    inner = module.replace("language_model.lm_head", "lm_head").replace("language_model.", "")
    tensor = names.get_name(inner)
    if tensor is None or is_vision(module):
        raise UserError(
            f"the adapter updates {module}, to which llama.cpp can add no adapter",
            where=where,
            remedy="serve the merged GGUF file instead",
        )
    return f"{tensor}.weight"


def _fold(
    tensor: str, update: LoraUpdate, alpha: float, shape: _Shape, where: str
) -> dict[str, np.ndarray]:
    """The two factors by their ends of name, such that llama.cpp adds what peft adds."""
    if update.magnitude is not None:
        raise UserError(
            "the adapter is a DoRA, whose lengths depend on the base: llama.cpp cannot add it",
            where=where,
            remedy="serve the merged GGUF file instead, or train with `train.lora.dora: false`",
        )
    rank = update.a.shape[0]
    b = update.b.float() * (update.scale * rank / alpha)
    if tensor.endswith("attn_q.weight"):
        b = interleave(b, num_heads=shape.num_heads)
    elif tensor.endswith("attn_k.weight"):
        b = interleave(b, num_heads=shape.num_kv_heads)
    return {"lora_a": update.a.float().contiguous().numpy(), "lora_b": b.contiguous().numpy()}


def _write(file: Path, fields: dict[str, Field], values: dict[str, np.ndarray]) -> None:
    """Not through gguf's writer: numpy's `tofile` within ends well on a full disk."""
    tensors = [
        TensorPlace(name, one.shape, gguf.GGMLQuantizationType.F32, 0)
        for name, one in values.items()
    ]
    header = Header(fields, tensors)
    with file.open("wb") as out:
        out.write(pack_header(header))
        for one in values.values():
            out.write(one.data)
            out.write(bytes(padding(one.nbytes, header.alignment)))
