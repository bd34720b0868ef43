"""Prepared pairs for the tests of preference tuning, and trainers over them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback

from configs.schema import TrainConfig
from data.conversation import question_and_answer
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer, render_conversations
from train.adapter import build_model
from train.checkpoints import MarkComplete
from train.pairs import load_pairs
from train.preference import build_preference_trainer
from train.preference_trainer import PreferenceTrainer
from train.trainers import shared_arguments

COLOURS = ["blue", "green", "red", "white", "black", "grey", "yellow"]
NUM_TRAIN, NUM_VALIDATION = 24, 5


def write_pairs(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """train.parquet and validation.parquet: a colour is preferred to begging off."""
    numbers = range(NUM_TRAIN + NUM_VALIDATION)
    questions = [f"Which colour is number {n}?" + " Say it." * (n % 5) for n in numbers]
    answers = (
        [f"The answer is {COLOURS[n % 7]}" + "." * (n % 3) for n in numbers],
        ["I do not know" + "." * (n % 4) for n in numbers],
    )
    preferred, rejected = (
        render_conversations(
            [question_and_answer(q, a, id="") for q, a in zip(questions, own, strict=True)],
            load_renderer(tokenizer),
            max_length=256,
        )
        for own in answers
    )
    table = pa.table(
        {
            "id": [f"pair {n}" for n in numbers],
            "where": [f"pairs.jsonl:{n + 1}" for n in numbers],
            "messages": ["[]" for _ in numbers],
            "input_ids": [one.input_ids for one in preferred],
            "assistant_mask": [one.assistant_mask for one in preferred],
            "rejected_ids": [one.input_ids for one in rejected],
            "rejected_mask": [one.assistant_mask for one in rejected],
        }
    )
    pq.write_table(table.slice(0, NUM_TRAIN), folder / "train.parquet")
    pq.write_table(table.slice(NUM_TRAIN), folder / "validation.parquet")


def build_trainer(
    config: TrainConfig,
    checkpoint: Path,
    data: Path,
    output: Path,
    *,
    model: PeftModel | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **arguments: Any,  # noqa: ANN401
) -> PreferenceTrainer:
    """A trainer over the pairs of `data` in the order of the file, again and again."""
    num_steps = config.num_steps
    assert num_steps is not None
    shared = shared_arguments(config, num_steps=num_steps, folder=output)
    return build_preference_trainer(
        config,
        model=model or build_model(config, checkpoint),
        tokenizer=load_tokenizer(checkpoint),
        train_pairs=load_pairs(data / "train.parquet"),
        validation_pairs=load_pairs(data / "validation.parquet"),
        order=[[n % NUM_TRAIN] for n in range(num_steps * config.batch_rows)],
        arguments=shared | arguments,
        callbacks=[*callbacks, MarkComplete()],
    )
