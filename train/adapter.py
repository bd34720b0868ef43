"""The train stage: prepared rows and a base model in, a LoRA adapter out."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from rich.console import Console
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging as transformers_logging

from configs.errors import UserError
from configs.schema import Strategy, TrainConfig
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer
from train import documents
from train.batches import FlatCollator, ReadImages
from train.best_adapter import KeepBestAdapter, best_adapter
from train.checkpoints import MarkComplete, latest_resumable, step_of
from train.frozen_vision import freeze_vision
from train.host_memory import limit_heap_growth
from train.images import ImageReader
from train.interruption import Interruption
from train.job import TrainFiles, Training, TrainJob
from train.lora import Batch, build_adapter
from train.loss_watch import LossWatch
from train.out_of_memory import with_reliefs
from train.pairs import Pairs, load_pairs
from train.plan.advice import reliefs
from train.preference import build_preference_trainer, reward_facts
from train.processes import is_first, num_processes, wait_for_all
from train.progress import TrainingProgress, quantize_once
from train.quantized_base import load_base, training_device
from train.row_trainer import RowTrainer
from train.rows import Rows, load_rows
from train.tiled_mlp import tile_mlps
from train.trackers import check_trackers, open_trackers
from train.trainers import build_supervised_trainer, plan_steps, shared_arguments
from train.whole_adapter import frozen_bytes, put_adapter, write_adapter

# What EVA looks at: enough for its directions to settle, few enough to take no time.
MAX_EVA_SEQUENCES = 64
EVA_BATCH_ROWS = 16
# Beside the checkpoints: the adapter with the lowest validation loss, for early stopping.
BEST = "best"


class Side(NamedTuple):
    """Rows of a side as their method sees them; rows: those with the preferred answers."""

    rows: Rows
    pairs: Pairs | None

    @property
    def lengths(self) -> Any:  # noqa: ANN401 - numpy's array
        """Tokens of each row, of a pair both answers together."""
        return self.rows.lengths if self.pairs is None else self.pairs.lengths


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all attempts at a training share, whatever memory they may use."""

    checkpoint: Path
    base_name: str
    run_name: str
    max_length: int
    strategy: Strategy
    train_side: Side
    validation_side: Side
    read_images: ReadImages | None
    files: TrainFiles
    console: Console


def train_adapter(
    config: TrainConfig,
    *,
    checkpoint: Path,
    base_name: str,
    run_name: str,
    max_length: int,
    files: TrainFiles,
    resume: bool,
    console: Console,
    strategy: Strategy = "ddp",
) -> Training:
    """Train the adapter, in this process alone or with the others that `torch.distributed` knows.

    base_name: what the adapter's files call the base; run_name: what trackers call the training;
    max_length: tokens of a packed sequence; resume: go on from the newest whole checkpoint; without
    it earlier ones are discarded; strategy: how several processes share the base. On a CPU a
    resumed run ends with the same adapter as an unbroken one. Where memory runs out, training goes
    on with the reliefs that `tunery plan` names; several processes end instead.

    Errors: `UserError` for rows, settings or a loss that training cannot go on with; `Interrupted`
    after SIGTERM, with the last step saved.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    limit_heap_growth()
    check_trackers(config.trackers)
    if config.optimizer == "paged_adamw_8bit" and training_device().type != "cuda":
        raise UserError(
            "bitsandbytes pages optimizer states on CUDA alone, and there is no such device",
            where="train.optimizer",
            remedy="set train.optimizer: adamw_8bit",
        )
    _check_processes(config)
    if is_first():
        if not resume:
            shutil.rmtree(files.checkpoints, ignore_errors=True)
        files.checkpoints.mkdir(parents=True, exist_ok=True)
    wait_for_all()
    train_side = _load_side(config, files.train_rows)
    validation_side = _load_side(config, files.validation_rows, config.max_validation_rows)
    has_images = train_side.rows.images or validation_side.rows.images
    setting = Setting(
        checkpoint=checkpoint,
        base_name=base_name,
        run_name=run_name,
        max_length=max_length,
        strategy=strategy,
        train_side=train_side,
        validation_side=validation_side,
        read_images=ImageReader(checkpoint).read if has_images else None,
        files=files,
        console=console,
    )
    with Interruption() as interruption:
        if config.quantization == "nf4":
            quantize_once(checkpoint, console)
        training, taken = with_reliefs(
            lambda settings: _train(settings, setting, interruption),
            config,
            # One process that begins again would wait for the others for ever.
            iter(())
            if num_processes() > 1
            else reliefs(
                config,
                device="cuda" if training_device().type == "cuda" else "cpu",
                tied_embeddings=_ties_embeddings(checkpoint),
                tokens_per_micro_batch=max_length * config.micro_batch_rows,
            ),
            console,
        )
    return training._replace(facts=training.facts | {"memory_reliefs": taken})


def train_job(job: TrainJob, console: Console) -> Training:
    """`train_adapter` for a job, in this process."""
    return train_adapter(
        job.config,
        checkpoint=job.checkpoint,
        base_name=job.base_name,
        run_name=job.run_name,
        max_length=job.max_length,
        files=job.files,
        resume=job.resume,
        console=console,
        strategy=job.hardware.strategy,
    )


def _train(config: TrainConfig, setting: Setting, interruption: Interruption) -> Training:
    files, rows = setting.files, setting.train_side.rows
    # 1. Which rows are met when; base and adapter.
    steps = plan_steps(config, setting.train_side.lengths, max_length=setting.max_length)
    tokenizer = load_tokenizer(setting.checkpoint)
    # It holds the token ids against Mistral's own where the model is one of theirs.
    load_renderer(tokenizer)
    model = build_model(
        config,
        setting.checkpoint,
        with_images=setting.read_images is not None,
        activations=_activations(config, setting, steps),
        strategy=setting.strategy,
    )
    # 2. Where an earlier attempt stopped, and what watches over this one.
    start = latest_resumable(files.checkpoints)
    start_step = step_of(start) if start else 0
    progress = TrainingProgress(setting.console)
    trackers_here = config.trackers if is_first() else []
    with ExitStack() as stack:
        stack.callback(progress.close)
        trackers = stack.enter_context(
            open_trackers(
                trackers_here,
                folder=files.trackers,
                run_name=setting.run_name,
                start_step=start_step,
            )
        )
        watch = LossWatch(
            lambda step: rows.describe(_rows_of_step(config, steps, step)),
            max_loss_ratio=config.max_loss_ratio,
        )
        # Trackers before the watch, so that they get the step that it stops at.
        callbacks = [progress, *trackers.callbacks, watch, *_keep_best(config, files)]
        # 3. Training.
        trainer = _build_trainer(
            config,
            setting,
            model=model,
            tokenizer=tokenizer,
            steps=steps,
            arguments=shared_arguments(
                config,
                strategy=setting.strategy,
                num_steps=len(steps) // config.batch_rows,
                folder=files.checkpoints,
            )
            | {"run_name": trackers.run_name, "project": trackers.project},
            # The interruption last, so that all others see the end of training.
            callbacks=[*callbacks, MarkComplete(), interruption],
        )
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        wait_for_all()
        best = best_adapter(files.checkpoints / BEST) if config.early_stopping_patience else None
        if best:
            put_adapter(model, load_file(best.path / SAFETENSORS_WEIGHTS_NAME))
        validation_loss = trainer.evaluate()["eval_loss"]
    # 4. The adapter, whole or not at all.
    base_gib = round(frozen_bytes(model) / 2**30, 6)
    write_adapter(model, files.adapter, base_name=setting.base_name)
    history = trainer.state.log_history
    losses = [log["loss"] for log in history if "loss" in log]
    facts = {
        "method": config.method,
        "num_steps": trainer.state.global_step,
        "resumed_from_step": start_step,
        "best_step": best.step if best else None,
        "num_tokens": int(trainer.state.num_input_tokens_seen),
        "tokens_per_second": round(progress.tokens_per_second, 1),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "validation_loss": round(validation_loss, 4),
        "device": training_device().type if num_processes() > 1 else str(training_device()),
        "num_processes": num_processes(),
        "base_gib_per_process": base_gib,
        "peak_device_gib": _peak_device_gib(),
    }
    if config.method == "preference":
        facts |= reward_facts(history)
    return Training(facts, history)


def build_model(
    config: TrainConfig,
    checkpoint: Path,
    *,
    with_images: bool = False,
    activations: Iterable[Batch] | None = None,
    strategy: Strategy = "ddp",
) -> PeftModel:
    """The frozen base with a fresh adapter on it, its initial weights fixed by the seed.

    with_images: keep the vision tower; activations: batches that an EVA adapter begins from.
    """
    base = load_base(
        checkpoint,
        quantization=config.quantization,
        with_images=with_images,
        offload_embedding=config.offload_embedding,
        shared_out=strategy == "fsdp",
    )
    if with_images:
        freeze_vision(base)
    # The vision tower of a model that has one keeps its own attention.
    base.get_decoder().set_attn_implementation(documents.NAME)
    if config.mlp_tile_tokens:
        tile_mlps(base.get_decoder(), config.mlp_tile_tokens)
    return build_adapter(base, config, activations=activations)


def _check_processes(config: TrainConfig) -> None:
    if config.method == "preference" and num_processes() > 1 and training_device().type != "cuda":
        raise UserError(
            "method preference trains in one process where there is no CUDA device",
            where="hardware.devices",
            remedy="set hardware.devices: 1",
        )


def _load_side(config: TrainConfig, file: Path, limit: int | None = None) -> Side:
    if config.method == "preference":
        pairs = load_pairs(file, limit=limit)
        return Side(pairs.preferred, pairs)
    return Side(load_rows(file, limit=limit), None)


def _build_trainer(
    config: TrainConfig,
    setting: Setting,
    *,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: list[list[int]],
    arguments: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback],
) -> RowTrainer:
    train_side, validation_side = setting.train_side, setting.validation_side
    if train_side.pairs is not None and validation_side.pairs is not None:
        return build_preference_trainer(
            config,
            model=model,
            tokenizer=tokenizer,
            train_pairs=train_side.pairs,
            validation_pairs=validation_side.pairs,
            order=steps,
            arguments=arguments,
            callbacks=callbacks,
            console=setting.console,
        )
    return build_supervised_trainer(
        config,
        model=model,
        tokenizer=tokenizer,
        train_rows=train_side.rows,
        validation_rows=validation_side.rows,
        steps=steps,
        max_length=setting.max_length,
        arguments=arguments,
        callbacks=callbacks,
        read_images=setting.read_images,
    )


def _keep_best(config: TrainConfig, files: TrainFiles) -> Iterator[TrainerCallback]:
    if config.early_stopping_patience:
        yield KeepBestAdapter(files.checkpoints / BEST, patience=config.early_stopping_patience)


def _rows_of_step(config: TrainConfig, steps: list[list[int]], step: int) -> list[int]:
    """Row numbers of an optimizer step; steps count from 1."""
    first = (step - 1) * config.batch_rows
    return [row for sequence in steps[first : first + config.batch_rows] for row in sequence]


def _activations(config: TrainConfig, setting: Setting, steps: list[list[int]]) -> Iterator[Batch]:
    """The first rows of training, which an EVA adapter begins from, in batches.

    A batch has to have more supervised tokens than the adapter has ranks, which a single short row
    has not.
    """
    if config.lora.init == "eva":
        collate = FlatCollator(setting.train_side.rows, setting.read_images)
        num_together = 1 if config.packing else EVA_BATCH_ROWS
        for start in range(0, min(len(steps), MAX_EVA_SEQUENCES), num_together):
            sequences = steps[start : start + num_together]
            batch = collate([{"rows": sequence} for sequence in sequences])
            yield {name: _to_device(value) for name, value in batch.items()}


def _to_device(value: Any) -> Any:  # noqa: ANN401 - tensors and numbers
    return value.to(training_device()) if isinstance(value, torch.Tensor) else value


def _ties_embeddings(checkpoint: Path) -> bool:
    """Whether the head is the input embedding, which then cannot be held elsewhere."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", {})
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))


def _peak_device_gib() -> float | None:
    """What the allocator held at most on the card, in GiB; None without one."""
    if training_device().type != "cuda":
        return None
    return round(torch.cuda.max_memory_reserved() / 2**30, 2)
