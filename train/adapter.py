"""The train stage: prepared rows and a base model in, a LoRA adapter out."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import torch
from peft import PeftModel, get_peft_model
from rich.console import Console
from transformers import PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig

from configs.errors import UserError
from configs.schema import TrainConfig
from data.cache import new_folder
from data.tokens.load_tokenizer import load_tokenizer
from train.checkpoints import MarkComplete, latest_resumable, step_of
from train.host_memory import limit_heap_growth
from train.progress import TrainingProgress
from train.quantized_base import build_lora, load_base, training_device
from train.row_order import count_steps, order_rows
from train.supervised_trainer import IGNORED, SupervisedTrainer

OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}


@dataclass(frozen=True)
class TrainFiles:
    """Where the stage reads and writes: rows, half-way states, the finished adapter."""

    train_rows: Path
    validation_rows: Path
    checkpoints: Path
    adapter: Path


def train_adapter(
    config: TrainConfig, *, checkpoint: Path, files: TrainFiles, resume: bool, console: Console
) -> dict[str, Any]:
    """Train the adapter and return facts for the manifest (losses, tokens, speed).

    resume: go on from the newest whole checkpoint; without it earlier ones are discarded. On a CPU
    a resumed run ends with the same adapter as an unbroken one.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    limit_heap_growth()
    # 1. Rows, as the model will see them.
    train_rows = load_rows(files.train_rows)
    validation_rows = load_rows(files.validation_rows, limit=config.max_validation_rows)
    # 2. Base and adapter.
    tokenizer = load_tokenizer(checkpoint)
    model = build_model(config, checkpoint)
    # 3. Where an earlier attempt stopped.
    if not resume:
        shutil.rmtree(files.checkpoints, ignore_errors=True)
    files.checkpoints.mkdir(parents=True, exist_ok=True)
    start = latest_resumable(files.checkpoints)
    # 4. Training.
    progress = TrainingProgress(console)
    trainer = build_trainer(
        config,
        model=model,
        tokenizer=tokenizer,
        train_rows=train_rows,
        validation_rows=validation_rows,
        folder=files.checkpoints,
        progress=progress,
    )
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        validation_loss = trainer.evaluate()["eval_loss"]
    finally:
        progress.close()
    # 5. The adapter, whole or not at all.
    with new_folder(files.adapter) as folder:
        model.save_pretrained(str(folder))
    history = trainer.state.log_history
    return {
        "num_steps": trainer.state.global_step,
        "resumed_from_step": step_of(start) if start else 0,
        "num_tokens": int(trainer.state.num_input_tokens_seen),
        "tokens_per_second": round(progress.tokens_per_second, 1),
        "first_loss": next((log["loss"] for log in history if "loss" in log), None),
        "last_loss": next((log["loss"] for log in reversed(history) if "loss" in log), None),
        "validation_loss": round(validation_loss, 4),
        "device": str(training_device()),
    }


def load_rows(file: Path, *, limit: int | None = None) -> datasets.Dataset:
    """Prepared rows as `input_ids` and `labels` (ignored where the mask is 0)."""
    table = pq.read_table(file, columns=["input_ids", "assistant_mask"])
    if limit is not None:
        table = table.slice(0, limit)
    if not table.num_rows:
        raise UserError(
            "no rows",
            where=file,
            remedy="give more data, or lower data.validation_fraction and data.test_fraction",
        )
    ids = table["input_ids"].to_pylist()
    masks = table["assistant_mask"].to_pylist()
    labels = [
        [token if supervised else IGNORED for token, supervised in zip(row, mask, strict=True)]
        for row, mask in zip(ids, masks, strict=True)
    ]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})


def build_model(config: TrainConfig, checkpoint: Path) -> PeftModel:
    """The frozen base with a fresh adapter on it, its initial weights fixed by the seed."""
    torch.manual_seed(config.seed)
    base = load_base(checkpoint, quantization=config.quantization)
    if training_device().type == "cpu":
        # On short padded rows torch's fused attention spends a third of a step in its CPU backward.
        base.set_attn_implementation("eager")
    return get_peft_model(base, build_lora(config.lora, base))


def build_trainer(
    config: TrainConfig,
    *,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: datasets.Dataset,
    validation_rows: datasets.Dataset,
    folder: Path,
    progress: TrainingProgress,
) -> SupervisedTrainer:
    """The trainer, quiet but for `progress`, writing checkpoints to `folder`."""
    on_gpu = training_device().type == "cuda"
    num_steps = count_steps(
        len(train_rows),
        batch_rows=config.batch_rows,
        num_steps=config.num_steps,
        num_epochs=config.num_epochs,
    )
    order = order_rows(
        [len(ids) for ids in train_rows["input_ids"]],
        num_steps=num_steps,
        batch_rows=config.batch_rows,
        seed=config.seed,
    )
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=num_steps,
        per_device_train_batch_size=config.micro_batch_rows,
        per_device_eval_batch_size=config.micro_batch_rows,
        gradient_accumulation_steps=config.batch_rows // config.micro_batch_rows,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=OPTIMIZERS[config.optimizer],
        gradient_checkpointing=config.gradient_checkpointing,
        # On the CPU the base is bf16 already, and autocast only adds casts.
        bf16=on_gpu,
        dataloader_pin_memory=on_gpu,
        # The rows stand in their order already.
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        eval_steps=config.validate_every_steps,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=config.save_every_steps,
        save_total_limit=config.keep_checkpoints,
        logging_steps=1,
        include_num_input_tokens_seen="non_padding",
        seed=config.seed,
        # The rows come rendered, masked and cut by the prepare stage.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SupervisedTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows.select(order),
        eval_dataset=validation_rows,
        processing_class=tokenizer,
        callbacks=[progress, MarkComplete()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer
