"""The trainer of a configuration: its settings in the trainer's words, quiet, from `folder` on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig

from configs.schema import Strategy, TrainConfig
from train.batches import FlatCollator, ReadImages
from train.lora import keep_adapter_dtype
from train.processes import num_processes
from train.quantized_base import training_device
from train.row_order import count_steps, order_rows, plan_sequences
from train.rows import Rows
from train.supervised_trainer import SupervisedTrainer

OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}


def plan_steps(config: TrainConfig, lengths: np.ndarray, *, max_length: int) -> list[list[int]]:
    """Row numbers of every sequence that training meets, in order: `batch_rows` of them a step.

    lengths: tokens of each row, shape (num_rows,).
    """
    capacity = max_length if config.packing else None
    sequences = plan_sequences(lengths, capacity=capacity, seed=config.seed)
    num_steps = count_steps(
        len(sequences),
        batch_rows=config.batch_rows,
        num_steps=config.num_steps,
        num_epochs=config.num_epochs,
    )
    order = order_rows(
        [int(lengths[sequence].sum()) for sequence in sequences],
        num_steps=num_steps,
        batch_rows=config.batch_rows,
        micro_batch_rows=config.micro_batch_rows,
        seed=config.seed,
    )
    return [sequences[number] for number in order]


def build_supervised_trainer(
    config: TrainConfig,
    *,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Rows,
    validation_rows: Rows,
    steps: list[list[int]],
    max_length: int,
    arguments: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback],
    read_images: ReadImages | None = None,
) -> SupervisedTrainer:
    """The trainer of method `supervised`.

    steps: as `plan_steps` gives them; max_length: tokens of a packed sequence; arguments: as
    `shared_arguments` gives them.
    """
    capacity = max_length if config.packing else None
    validation = plan_sequences(validation_rows.lengths, capacity=capacity, seed=config.seed)
    settings = SFTConfig(
        **arguments,
        # The rows come rendered and masked by the prepare stage.
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SupervisedTrainer(
        model=model,
        args=settings,
        train_dataset=datasets.Dataset.from_dict({"rows": steps}),
        eval_dataset=datasets.Dataset.from_dict({"rows": validation}),
        data_collator=FlatCollator(train_rows, read_images),
        validation_collator=FlatCollator(validation_rows, read_images),
        processing_class=tokenizer,
        callbacks=list(callbacks),
        config=config,
    )
    keep_adapter_dtype(model, config.lora.dtype)
    if settings.fsdp:
        _share_out_on_cpus(trainer, settings)
    return trainer


def shared_arguments(
    config: TrainConfig, *, strategy: Strategy = "ddp", num_steps: int, folder: Path
) -> dict[str, Any]:
    """What the trainers of both methods are told alike, by the names of TRL's arguments.

    strategy: how processes that train together share the model out.
    """
    on_gpu = training_device().type == "cuda"
    rows_at_once = config.micro_batch_rows * num_processes()
    return _sharing(strategy) | {
        "output_dir": str(folder),
        "max_steps": num_steps,
        "per_device_train_batch_size": config.micro_batch_rows,
        "per_device_eval_batch_size": config.micro_batch_rows,
        "gradient_accumulation_steps": config.batch_rows // rows_at_once,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": OPTIMIZERS[config.optimizer],
        "gradient_checkpointing": config.gradient_checkpointing,
        # It moves saved tensors of CUDA alone, and fails elsewhere.
        "activation_offloading": config.offload_activations and on_gpu,
        # The prepare stage has cut them.
        "max_length": None,
        # On the CPU the base is bf16 already, and autocast only adds casts.
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        # Every adapter is met in every step; looking for those that are not costs a pass.
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": on_gpu,
        # The rows stand in their order already, under a name that the model does not know.
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "eval_strategy": "steps",
        "eval_steps": config.validate_every_steps,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": config.save_every_steps,
        "save_total_limit": config.keep_checkpoints,
        "logging_steps": 1,
        # The trainer would else put the mean of the last losses in place of one that is not finite.
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "all",
        "seed": config.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _sharing(strategy: Strategy) -> dict[str, Any]:
    if strategy == "ddp":
        return {}
    return {
        "fsdp": True,
        # One unit a decoder layer, as the model's class names it; checkpoints hold whole adapters.
        "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"},
    }


def _share_out_on_cpus(trainer: SupervisedTrainer, settings: SFTConfig) -> None:
    """Have accelerate do on CPUs what it was told of FSDP, and what it does on cards alone.

    Elsewhere it leaves it out and says nothing, so that each process would hold the whole base.
    """
    state = trainer.accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**settings.fsdp_plugin_args)
        trainer.is_fsdp_enabled = True
