"""A ready 4-bit checkpoint as a bf16 one, into which adapters are merged and that can be served."""

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit

from data.cache import new_folder
from train.quantization import check_is_nf4, read_config, read_quantization
from train.weight_files import (
    MORE_CACHE,
    ShardWriter,
    check_free_space,
    list_shards,
    made_once,
    read_tensor,
    tensor_names,
    write_carried_files,
)

# What stands beside a quantized weight in the files; the first is there for every one.
STATE = "quant_state.bitsandbytes__nf4"
PARTS = (STATE, "absmax", "quant_map", "nested_absmax", "nested_quant_map")


def resolve_plain(checkpoint: Path) -> Path:
    """The weights of `checkpoint` in bf16: itself, or one made of its NF4 weights and kept.

    They are the very numbers that training saw. Errors: `UserError` for weights quantized
    otherwise, and for a full disk.
    """
    if read_quantization(checkpoint) is None:
        return checkpoint
    check_is_nf4(checkpoint)
    return made_once(
        checkpoint,
        kind="plain",
        recipe="bf16",
        make=lambda folder: dequantize_checkpoint(checkpoint, folder),
    )


def dequantize_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Write the bf16 checkpoint of an NF4 one to `folder`, whole or not at all."""
    shards = list_shards(checkpoint)
    places = {name: shard for shard in shards for name in tensor_names(shard)}
    quantized = {name.removesuffix(f".{STATE}") for name in places if name.endswith(f".{STATE}")}
    parts = {f"{name}.{part}" for name in quantized for part in PARTS}
    names = [name for name in places if name not in parts]
    # 16 bits for 4, and what is not quantized once more.
    needed = 4 * sum(shard.stat().st_size for shard in shards)
    check_free_space(folder, needed=needed, remedy=MORE_CACHE)
    with new_folder(folder) as partial:
        writer = ShardWriter(partial)
        for name in names:
            if name in quantized:
                writer.add({name: read_dequantized(places, name)})
            else:
                writer.add({name: read_tensor(places[name], name)})
        writer.finish()
        write_carried_files(checkpoint, partial, config=_plain_config(checkpoint))


def read_dequantized(places: dict[str, Path], name: str) -> torch.Tensor:
    """The weight `name` in bf16, (out, in); places: the file of every tensor."""
    parts = {part: f"{name}.{part}" for part in PARTS}
    told = {part: read_tensor(places[n], n) for part, n in parts.items() if n in places}
    state = QuantState.from_dict(told, device=torch.device("cpu"))
    weight = dequantize_4bit(read_tensor(places[name], name), state)
    return weight.to(torch.bfloat16)


def _plain_config(checkpoint: Path) -> dict[str, Any]:
    config = read_config(checkpoint)
    config.pop("quantization_config", None)
    if isinstance(config.get("text_config"), dict):
        config["text_config"].pop("quantization_config", None)
    return config
