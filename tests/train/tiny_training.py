"""A real training of the tiny checkpoint on a handful of rows, for tests of callbacks.

As a program it can be ended by a signal; arguments: FOLDER CHECKPOINT NUM_STEPS.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from configs.errors import INTERRUPTED_STATUS, Interrupted
from data.tokens.load_tokenizer import load_tokenizer
from train.checkpoints import MarkComplete, latest_resumable
from train.interruption import Interruption
from train.quantized_base import load_base

COLOURS = ["blue", "green", "red", "white", "black"]
BATCH_ROWS = 2


def build_model(checkpoint: Path, *, dropout: float = 0.1) -> PeftModel:
    """Dropout, so that a resumed run needs the random state too."""
    torch.manual_seed(3)
    base = load_base(checkpoint, quantization="nf4")
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, lora)


def build_rows(checkpoint: Path, num_rows: int) -> datasets.Dataset:
    """Rows whose last tokens are learned."""
    tokenizer = load_tokenizer(checkpoint)
    ids = [
        tokenizer(f"Which colour is number {number}? The answer is {COLOURS[number % 5]}").input_ids
        for number in range(num_rows)
    ]
    labels = [[-100] * (len(row) - 6) + row[-6:] for row in ids]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})


def build_trainer(
    folder: Path,
    checkpoint: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    model: PeftModel | None = None,
    rows: datasets.Dataset | None = None,
    num_steps: int = 12,
    **arguments: Any,  # noqa: ANN401 - those of TrainingArguments
) -> Trainer:
    """A trainer that saves every 4 steps and validates every 3, two micro-batches a step.

    rows: two for each step, in their order, and at least one more to validate on.
    """
    transformers_logging.set_verbosity_error()
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": BATCH_ROWS,
        "learning_rate": 5e-3,
        "warmup_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 4,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
    }
    config = TrainingArguments(
        output_dir=str(folder),
        max_steps=num_steps,
        prediction_loss_only=True,
        include_num_input_tokens_seen="non_padding",
        train_sampling_strategy="sequential",
        bf16=False,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
        **settings | arguments,
    )
    rows = rows or build_rows(checkpoint, BATCH_ROWS * num_steps + 3)
    trainer = Trainer(
        model=model or build_model(checkpoint),
        args=config,
        train_dataset=rows.select(range(BATCH_ROWS * num_steps)),
        eval_dataset=rows.select(range(BATCH_ROWS * num_steps, len(rows))),
        processing_class=load_tokenizer(checkpoint),
        callbacks=[MarkComplete(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(trainer: Trainer) -> None:
    """Train from the newest whole checkpoint on, as the train stage does."""
    start = latest_resumable(Path(str(trainer.args.output_dir)))
    trainer.train(resume_from_checkpoint=str(start) if start else None)


class SendTerm(TrainerCallback):
    """Sends this process a real SIGTERM at one event of one step, once."""

    def __init__(self, event: str, step: int) -> None:
        self.is_sent = False

        def send(args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ANN401
            if state.global_step == step and not self.is_sent:
                self.is_sent = True
                os.kill(os.getpid(), signal.SIGTERM)

        setattr(self, event, send)


class StopAfter(TrainerCallback):
    """Breaks the training off after a step, like a process that was killed there."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        if state.global_step == self._step:
            raise KilledError


class KilledError(Exception):
    """Stands for a kill."""


def train_until(step: int, trainer: Trainer) -> None:
    """Train, and end after `step` as a killed process does."""
    trainer.add_callback(StopAfter(step))
    with suppress(KilledError):
        train(trainer)
    assert trainer.state.global_step == step


def adapter_bytes(trainer: Trainer, folder: Path) -> bytes:
    """The adapter as it is saved."""
    assert isinstance(trainer.model, PeftModel)
    trainer.model.save_pretrained(str(folder))
    return (folder / "adapter_model.safetensors").read_bytes()


if __name__ == "__main__":
    (folder, checkpoint), num_steps = map(Path, sys.argv[1:3]), int(sys.argv[3])
    try:
        with Interruption() as interruption:
            train(build_trainer(folder, checkpoint, callbacks=[interruption], num_steps=num_steps))
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        # As the command does, without the end of Python's libraries, which takes seconds.
        os._exit(INTERRUPTED_STATUS)
