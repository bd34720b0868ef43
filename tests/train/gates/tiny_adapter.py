"""A tiny model, an adapter that learned something on it, and merges of both with planted faults."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from data.conversation import Conversation, question_and_answer
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer
from train.gates.scoring import HeldOutRow
from train.lora import VISION_MODULES
from train.quantization import model_class

COLOURS = ["blue", "green", "red", "white", "black", "grey", "yellow"]
ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class TinyRun:
    """Folders of a base and its adapter, and rows that the adapter was not trained on."""

    checkpoint: Path
    adapter: Path
    rows: list[HeldOutRow]


def build_outspoken_checkpoint(checkpoint: Path, folder: Path) -> Path:
    """A copy with larger embeddings, so that the model can be sure of a token as real ones are."""
    shutil.copytree(checkpoint, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.embed_tokens.weight"] *= 8
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def build_rows(checkpoint: Path, numbers: range) -> list[HeldOutRow]:
    conversations = [colour_row(number) for number in numbers]
    renderer = load_renderer(load_tokenizer(checkpoint))
    return [
        HeldOutRow(row, np.array(one.input_ids, np.int32), np.array(one.assistant_mask, np.int8))
        for row, one in zip(conversations, renderer.render(conversations), strict=True)
    ]


def colour_row(number: int) -> Conversation:
    """Answers are too irregular to be learned by heart, so the model stays in doubt."""
    return question_and_answer(
        f"Which colour is number {number}?",
        f"The answer is {COLOURS[number * number // 5 % 7]}{'.!?'[number % 3]}",
        id=str(number),
    )


def train_adapter(checkpoint: Path, folder: Path, *, num_steps: int, seed: int = 3) -> Path:
    """LoRA on every linear layer, trained on rows 0 to 31 of `colour_row`."""
    rows = build_rows(checkpoint, range(32))
    model = model_class(checkpoint).from_pretrained(checkpoint, dtype=torch.float32)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        exclude_modules=VISION_MODULES if model.config.model_type == "mistral3" else None,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, lora)
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=5e-3)
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.from_numpy(row.ids)
        labels[number, row.scored] = torch.from_numpy(row.ids[row.scored]).long()
    for step in range(num_steps):
        part = slice(step % 4 * 8, step % 4 * 8 + 8)
        adapted(input_ids=ids[part], labels=labels[part]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(str(folder))
    return folder


def change_adapter(
    adapter: Path, folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]
) -> Path:
    """A copy whose tensors are what `change` makes of each by its name."""
    shutil.copytree(adapter, folder)
    tensors = load_file(adapter / ADAPTER_FILE)
    changed = {name: change(name, tensor).contiguous() for name, tensor in tensors.items()}
    save_file(changed, folder / ADAPTER_FILE, metadata={"format": "pt"})
    return folder


def change_tokenizer_config(folder: Path, **told: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
