"""Training speed against a plain TRL script: the same rows, model, adapter and machine, one run.

    python -m benchmarks.train_cpu [--steps 8] [--rounds 2]

Each side trains in a process of its own, in turns, so that a busy machine slows both alike. The
plain script is what TRL's own documentation leads to: `SFTTrainer` with its defaults, the base in
NF4, the same LoRA, batch and labels. Tokens are those of the rows; padding is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from benchmarks.clock import Clock
from configs.load import load_config
from configs.schema import TrainConfig
from data.models.model_source import resolve_checkpoint
from data.prepare import prepare
from data.tokens.load_tokenizer import load_tokenizer
from train.adapter import build_model
from train.batches import IGNORED
from train.rows import Rows, load_rows
from train.trainers import build_supervised_trainer, plan_steps, shared_arguments

CONFIG = Path("configs/demo-medical.yaml")


def main() -> None:
    """Alternate the two sides and print their medians; the last line is one JSON object."""
    arguments = _parse_arguments()
    if arguments.side:
        print(json.dumps(_train(arguments.side, arguments.rows, arguments.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = _prepare_rows(Path(folder))
        speeds: dict[str, list[float]] = {"tunery": [], "trl": []}
        for number in range(arguments.rounds):
            for side in ("tunery", "trl") if number % 2 == 0 else ("trl", "tunery"):
                speed = _run_side(side, rows, arguments.steps)
                speeds[side].append(speed)
                print(f"round {number + 1}, {side}: {speed:.0f} tokens/s", flush=True)
    ours, theirs = (statistics.median(speeds[side]) for side in ("tunery", "trl"))
    print(
        json.dumps(
            {
                "benchmark": "train_cpu",
                "value": round(ours, 1),
                "unit": "tokens/s",
                "against": f"plain TRL SFTTrainer, {theirs:.1f} tokens/s",
                "ratio": round(ours / theirs, 3),
            }
        )
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=["tunery", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _prepare_rows(folder: Path) -> Path:
    prepare(load_config(CONFIG), folder / "data")
    return folder / "data" / "train.parquet"


def _run_side(side: str, rows: Path, steps: int) -> float:
    command = [sys.executable, "-m", "benchmarks.train_cpu", "--side", side]
    command += ["--rows", str(rows), "--steps", str(steps)]
    # As the command sets it, for both sides.
    environment = {"GOMP_SPINCOUNT": "10000"} | os.environ
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1]))


def _train(side: str, rows_file: Path, steps: int) -> float:
    """Tokens per second over `steps` optimizer steps, the first one left out as warm-up."""
    config = load_config(CONFIG)
    settings = config.train.model_copy(update={"num_steps": steps, "validate_every_steps": 10_000})
    checkpoint = resolve_checkpoint(config.model)
    tokenizer = load_tokenizer(checkpoint)
    rows = load_rows(rows_file)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer: SFTTrainer
        if side == "tunery":
            trainer = build_supervised_trainer(
                settings,
                model=build_model(settings, checkpoint),
                tokenizer=tokenizer,
                train_rows=rows,
                validation_rows=load_rows(rows_file, limit=8),
                steps=plan_steps(settings, rows.lengths, max_length=config.model.max_length),
                max_length=config.model.max_length,
                arguments=shared_arguments(
                    settings, num_steps=settings.num_steps or steps, folder=Path(folder)
                ),
                callbacks=[],
            )
        else:
            trainer = _build_plain_trl(settings, checkpoint, tokenizer, rows, Path(folder))
        trainer.add_callback(clock)
        trainer.train()
    (start, tokens_before), (end, tokens_after) = clock.marks[0], clock.marks[-1]
    return (tokens_after - tokens_before) / (end - start)


def _build_plain_trl(
    settings: TrainConfig,
    checkpoint: Path,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    folder: Path,
) -> SFTTrainer:
    return SFTTrainer(
        model=str(checkpoint),
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=settings.num_steps or -1,
            per_device_train_batch_size=settings.batch_rows,
            learning_rate=settings.learning_rate,
            # TRL turns it on by default; off is faster where memory allows, and so it is here.
            gradient_checkpointing=False,
            # TRL's default wants a GPU; the weights are bf16 all the same.
            bf16=False,
            model_init_kwargs={"dtype": torch.bfloat16},
            include_num_input_tokens_seen="non_padding",
            dataset_kwargs={"skip_prepare_dataset": True},
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=_with_labels(rows),
        processing_class=tokenizer,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        peft_config=LoraConfig(
            r=settings.lora.rank, lora_alpha=settings.lora.alpha, target_modules="all-linear"
        ),
    )


def _with_labels(rows: Rows) -> datasets.Dataset:
    ids = [rows.input_ids[rows.span(number)].tolist() for number in range(len(rows))]
    masks = [rows.assistant_mask[rows.span(number)].tolist() for number in range(len(rows))]
    labels = [
        [token if supervised else IGNORED for token, supervised in zip(row, mask, strict=True)]
        for row, mask in zip(ids, masks, strict=True)
    ]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})


if __name__ == "__main__":
    main()
