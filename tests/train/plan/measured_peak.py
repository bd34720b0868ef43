"""The peak of a real training step of a tiny Mistral3, as torch's profiler counts it.

As a program it prints planned and measured peaks of all cases: `python -m
tests.train.plan.measured_peak`.
"""

import gc
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import bitsandbytes
import torch
from peft import PeftModel
from torch.profiler import ProfilerActivity, profile

from configs.schema import TrainConfig
from tests.tiny_mistral3 import build_tiny_mistral3
from train.adapter import build_model
from train.head_loss import head_loss
from train.plan.architecture import read_architecture
from train.plan.config_source import read_json
from train.plan.memory import plan_memory
from train.plan.step import Batch, Step

OPTIMIZERS: dict[str, Any] = {
    "adamw_torch": torch.optim.AdamW,
    "adamw_8bit": bitsandbytes.optim.AdamW8bit,
}
SMALL = {"hidden": 256, "intermediate": 1024, "num_layers": 4, "vocab_size": 2048}
# MLP as wide, for its hidden states, as Mistral Small 3.1's; a large vocabulary.
WIDE = {"hidden": 256, "intermediate": 1664, "num_layers": 6, "vocab_size": 8192}
# Heads narrower together than the hidden states, as Mistral Small 3.1's; many thin layers.
DEEP = {"hidden": 320, "intermediate": 832, "num_layers": 12, "vocab_size": 512}
# With its MLP in tiles the peak is in a norm, as that of the longest sequences is.
NARROW = {"hidden": 512, "intermediate": 512, "num_layers": 3, "vocab_size": 512}
HEADS = {"num_heads": 8, "num_kv_heads": 2, "head_dim": 32}


@dataclass(frozen=True)
class Case:
    """A tiny model, a training of it, and one flat micro-batch of documents of equal length."""

    name: str
    shape: dict[str, int]
    train: dict[str, Any] = field(default_factory=dict)
    num_tokens: int = 1024
    num_documents: int = 1
    num_supervised: int = 256

    @property
    def config(self) -> TrainConfig:
        """Two micro-batches a step, unless the case says otherwise."""
        return TrainConfig.model_validate(
            {"num_steps": 1, "batch_rows": 2, "micro_batch_rows": 1} | self.train
        )


class Peaks(NamedTuple):
    """Bytes of tensors, planned and measured."""

    planned: float
    measured: float


CHECKPOINTING = {"gradient_checkpointing": True}
FP32 = {"lora": {"dtype": "float32"}}
DROPOUT = {"lora": {"dropout": 0.1}}
DORA = {"lora": {"dora": True}}
ONE_MICRO_BATCH = {"lora": {"rank": 32}, "batch_rows": 1}


def _grid() -> Iterator[Case]:
    """Sizes, lengths, ranks and optimizers, each with and without checkpointing."""
    for name, shape, length, rank, optimizer in (
        ("small", SMALL, 512, 8, "adamw_torch"),
        ("small", SMALL, 512, 32, "adamw_8bit"),
        ("small", SMALL, 1536, 32, "adamw_torch"),
        ("wide", WIDE, 512, 32, "adamw_torch"),
        ("wide", WIDE, 1536, 8, "adamw_8bit"),
        ("deep", DEEP, 512, 32, "adamw_torch"),
        ("deep", DEEP, 1024, 8, "adamw_torch"),
    ):
        train = {"lora": {"rank": rank}, "optimizer": optimizer}
        title = f"{name}, {length} tokens, rank {rank}, {optimizer}"
        yield Case(title, shape, train, num_tokens=length)
        yield Case(f"{title}, checkpointing", shape, train | CHECKPOINTING, num_tokens=length)


def _variants() -> Iterator[Case]:
    """What else changes who keeps what."""
    yield Case("all tokens supervised", WIDE, CHECKPOINTING, num_supervised=1024)
    yield Case("short documents", SMALL, num_documents=8)
    yield Case("short documents, checkpointing", SMALL, CHECKPOINTING, num_documents=8)
    yield Case("one micro-batch a step", SMALL, ONE_MICRO_BATCH)
    yield Case("one micro-batch a step, checkpointing", DEEP, ONE_MICRO_BATCH | CHECKPOINTING)
    tiles = {"mlp_tile_tokens": 128}
    yield Case("tiles of 128 tokens, checkpointing", WIDE, tiles | CHECKPOINTING)
    yield Case("narrow MLP in tiles, checkpointing", NARROW, tiles | CHECKPOINTING)
    yield Case("tiles of 256 tokens", WIDE, {"mlp_tile_tokens": 256})
    yield Case("adapter in fp32", SMALL, FP32)
    yield Case("adapter in fp32, checkpointing", WIDE, FP32 | CHECKPOINTING)
    yield Case("dropout", SMALL, DROPOUT)
    yield Case("dropout, checkpointing", SMALL, DROPOUT | CHECKPOINTING)
    yield Case("DoRA", SMALL, DORA)
    yield Case("DoRA, checkpointing", SMALL, DORA | CHECKPOINTING)
    yield Case("bf16 base, checkpointing", SMALL, CHECKPOINTING | {"quantization": "none"})


CASES = [*_grid(), *_variants()]


def compare(case: Case, folder: Path) -> Peaks:
    """Plan and measure one case; `folder` is for its checkpoint."""
    checkpoint = build_shape(folder, case.shape)
    architecture = read_architecture(read_json(checkpoint / "config.json"), where=str(checkpoint))
    document = case.num_tokens // case.num_documents
    batch = Batch(case.num_tokens, case.num_supervised, document)
    planned = plan_memory(Step(architecture, case.config, batch, "cpu"), with_vision=False)
    process = planned.parts["process"]
    return Peaks(planned.peak - process, measure(case, checkpoint))


def build_shape(folder: Path, shape: dict[str, int]) -> Path:
    """A random checkpoint of a shape in `folder`."""
    sizes: dict[str, Any] = HEADS | shape
    return build_tiny_mistral3(folder, num_shards=1, **sizes)


def measure(case: Case, checkpoint: Path) -> int:
    """Bytes of tensors at the peak of an optimizer step, after one that made the states."""
    model = build_model(case.config, checkpoint).train()
    if case.config.gradient_checkpointing:
        # As TRL does for an adapter.
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[case.config.optimizer](trained, lr=1e-4)
    inputs, labelled = build_inputs(case)
    take_step(model, optimizer, inputs, labelled, case.config)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        take_step(model, optimizer, inputs, labelled, case.config)
    tensors = [*model.parameters(), *model.buffers(), *_quantization_states(model)]
    states = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    return count_bytes([*tensors, *states, *inputs.values()]) + peak_of(profiler)


def build_inputs(case: Case) -> tuple[dict[str, Any], torch.Tensor]:
    """Model inputs as `FlatCollator` makes them, and where a token is supervised."""
    document = case.num_tokens // case.num_documents
    ids = torch.randint(20, 300, (1, case.num_tokens))
    boundaries = torch.arange(case.num_documents + 1, dtype=torch.int32) * document
    labelled = torch.zeros(case.num_tokens, dtype=torch.bool)
    labelled[-case.num_supervised - 1 : -1] = True
    inputs = {
        "input_ids": ids,
        "position_ids": (torch.arange(case.num_tokens) % document)[None],
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": document,
        "max_length_k": document,
    }
    return inputs, labelled


def take_step(
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    inputs: dict[str, Any],
    labelled: torch.Tensor,
    config: TrainConfig,
) -> None:
    """An optimizer step as the trainer takes it on a CPU."""
    for _ in range(config.batch_rows // config.micro_batch_rows):
        loss_of(model, inputs, labelled).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()


def loss_of(model: PeftModel, inputs: dict[str, Any], labelled: torch.Tensor) -> torch.Tensor:
    """As `SupervisedTrainer` computes it."""
    language_model: Any = model.get_base_model()
    states = language_model.base_model(**inputs, use_cache=False).last_hidden_state[0]
    targets = inputs["input_ids"][0].roll(-1)[labelled]
    return head_loss(states[labelled], language_model.get_output_embeddings(), targets)


def peak_of(profiler: profile) -> int:
    """The largest sum of what has been allocated and not freed since the profiler began."""
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def count_bytes(values: list[Any]) -> int:
    """Bytes of the tensors among `values`, each memory counted once."""
    tensors = {value.data_ptr(): value for value in values if torch.is_tensor(value)}
    return sum(tensor.nbytes for tensor in tensors.values())


def _quantization_states(model: PeftModel) -> Iterator[torch.Tensor]:
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight: Any = module.weight
            state = weight.quant_state
            yield from (state.absmax, state.code, state.offset)
            yield from (state.state2.absmax, state.state2.code)


def main() -> None:
    """Print the table of docs/planning.md."""
    print("| case | planned MiB | measured MiB | difference |\n|---|---|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUNERY_CACHE"] = f"{folder}/cache"
            planned, measured = compare(case, Path(folder) / "checkpoint")
        difference = planned / measured - 1
        row = f"{planned / 2**20:.1f} | {measured / 2**20:.1f} | {difference:+.1%}"
        print(f"| {case.name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
