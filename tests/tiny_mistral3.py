"""A tiny Mistral3 with vision tower and text layers, laid out on disk as Mistral Small 3.1 is.

The release's tensor names differ from those in memory, its configuration does not say that head and
embedding are apart, and its weights come in shards: faults that a model saved by the library of
today would hide.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from tests.mistral_tokenizer import build_mistral_checkpoint

# Names in memory and in the release's files; the first that matches counts.
HUB_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("lm_head.", "language_model.lm_head."),
)
IMAGE_PROCESSOR = {
    "image_processor_type": "PixtralImageProcessor",
    "patch_size": {"height": 14, "width": 14},
    "processor_class": "PixtralProcessor",
    "size": {"longest_edge": 56},
}
NUM_TEKKEN_TOKENS = 131_072


def build_tiny_mistral3(
    folder: Path,
    *,
    vocab_size: int = 320,
    hidden: int = 64,
    intermediate: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 16,
    num_vision_layers: int = 3,
    max_positions: int = 2048,
    tied: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    num_shards: int = 2,
    with_tokenizer: bool = False,
    seed: int = 17,
) -> Path:
    """Write a random Mistral3 into `folder` in the hub's layout; returns `folder`.

    Equal bytes at every call. vocab_size, hidden, intermediate, heads: of the language model; the
    vision tower has hidden size 64 and 14-pixel patches of images of up to 56 pixels a side.
    tied: the head is the embedding and not in the files. with_tokenizer: also the full-size v7
    tokenizer (36 MB, three seconds); vocab_size is then 131,072.
    """
    if with_tokenizer:
        build_mistral_checkpoint(folder)
        vocab_size = NUM_TEKKEN_TOKENS
    folder.mkdir(parents=True, exist_ok=True)
    config = Mistral3Config(
        architectures=["Mistral3ForConditionalGeneration"],
        tie_word_embeddings=tied,
        text_config={
            "model_type": "mistral",
            "vocab_size": vocab_size,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_kv_heads,
            "head_dim": head_dim,
            "max_position_embeddings": max_positions,
            "sliding_window": None,
            "rms_norm_eps": 1e-5,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": num_vision_layers,
            "num_attention_heads": 4,
            "head_dim": 16,
            "image_size": 56,
            "patch_size": 14,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Mistral3ForConditionalGeneration._from_config(config, dtype=dtype)
    tensors = {hub_name(name): tensor for name, tensor in model.state_dict().items()}
    if tied:
        del tensors["language_model.lm_head.weight"]
    _write_shards(folder, tensors, num_shards)
    _write_config(folder, config, dtype)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGE_PROCESSOR))
    return folder


def hub_name(name: str) -> str:
    """The name in the release's files of a tensor that is called `name` in memory."""
    for in_memory, in_file in HUB_PREFIXES:
        if name.startswith(in_memory):
            return in_file + name.removeprefix(in_memory)
    return name


def _write_config(folder: Path, config: Mistral3Config, dtype: torch.dtype) -> None:
    written = config.to_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    if not config.tie_word_embeddings:
        # The release leaves it out, and the class's own default says that they are tied.
        del written["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(written, indent=2))


def _write_shards(folder: Path, tensors: dict[str, torch.Tensor], num_shards: int) -> None:
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number in range(num_shards):
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        own = names[number * len(names) // num_shards : (number + 1) * len(names) // num_shards]
        save_file({name: tensors[name] for name in own}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
