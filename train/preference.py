"""Method `preference`: direct preference optimization (arXiv 2305.18290) on prepared pairs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from peft import PeftModel
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig

from configs.schema import TrainConfig
from train.lora import keep_adapter_dtype
from train.pairs import LogProbs, PairCollator, Pairs
from train.preference_trainer import PreferenceTrainer

# Beside the checkpoints: a training that is resumed need not ask the reference again.
REFERENCE_FILE = "reference.npz"
# Names in TRL's log, in front of which it puts `eval_` for the validation rows.
REWARDS = {"reward_margin": "rewards/margins", "reward_accuracy": "rewards/accuracies"}


class Side(NamedTuple):
    """Pairs to train or validate on, and their numbers as they share micro-batches."""

    pairs: Pairs
    collate: PairCollator
    batches: list[list[int]]


def build_preference_trainer(
    config: TrainConfig,
    *,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train_pairs: Pairs,
    validation_pairs: Pairs,
    order: Sequence[Sequence[int]],
    arguments: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback],
    console: Console | None = None,
) -> PreferenceTrainer:
    """The trainer of method `preference`; the reference has been asked when it returns.

    model: as it begins, for it is its own reference; order: the number of the pair at every place
    of every optimizer step, as a list of one; arguments: what both methods share, as
    `shared_arguments` gives it; console: where the progress of asking the reference is shown.
    """
    settings = DPOConfig(
        **{**arguments, "include_num_input_tokens_seen": "non_padding"},
        beta=config.preference.beta,
        loss_type=[config.preference.loss],
        # TRL else turns off all dropout, the adapter's too.
        disable_dropout=not config.lora.dropout,
    )
    training, validation = (
        _side(pairs, numbers, tokenizer, config.micro_batch_rows)
        for pairs, numbers in (
            (train_pairs, [number for numbers in order for number in numbers]),
            (validation_pairs, range(len(validation_pairs))),
        )
    )
    trainer = PreferenceTrainer(
        model=model,
        args=settings,
        train_dataset=_items(training),
        eval_dataset=_items(validation),
        data_collator=training.collate,
        validation_collator=validation.collate,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        config=config,
    )
    file = Path(str(settings.output_dir)) / REFERENCE_FILE
    _ask_reference(trainer, (training, validation), file, console)
    keep_adapter_dtype(model, config.lora.dtype)
    return trainer


def reward_facts(history: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """How well the model tells the answers apart, from a trainer's `log_history`.

    A pair's margin is beta times by how much the log-probability of the preferred answer has grown
    more than that of the rejected one; accuracy is the share of pairs with a margin above 0. For
    training the first and the last step's, for validation the first and the last.
    """
    facts: dict[str, float | None] = {}
    for prefix, side in (("", ""), ("eval_", "validation_")):
        for fact, name in REWARDS.items():
            values = [log[prefix + name] for log in history if prefix + name in log]
            for which, found in (("first", values[:1]), ("last", values[-1:])):
                facts[f"{which}_{side}{fact}"] = round(found[0], 4) if found else None
    return facts


def _side(
    pairs: Pairs, numbers: Sequence[int], tokenizer: PreTrainedTokenizerBase, micro_batch_rows: int
) -> Side:
    assert tokenizer.pad_token_id is not None
    starts = range(0, len(numbers), micro_batch_rows)
    return Side(
        pairs,
        PairCollator(pairs, pad_token_id=tokenizer.pad_token_id),
        [list(numbers[start : start + micro_batch_rows]) for start in starts],
    )


def _items(side: Side) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"rows": [[n] for batch in side.batches for n in batch]})


def _ask_reference(
    trainer: PreferenceTrainer, sides: Sequence[Side], file: Path, console: Console | None
) -> None:
    """Give every pair the reference's log-probabilities, from `file` where an attempt left them."""
    found = _load(file)
    if not _covers(found, sides):
        found = [
            trainer.compute_reference(side.collate, len(side.pairs), _told(side.batches, console))
            for side in sides
        ]
        _save(file, found)
    trainer.use_reference({side.collate: scores for side, scores in zip(sides, found, strict=True)})


def _told(batches: list[list[int]], console: Console | None) -> Iterable[list[int]]:
    shown = console or Console(quiet=True)
    return track(batches, description="    asking the reference", console=shown)


def _covers(found: Sequence[LogProbs], sides: Sequence[Side]) -> bool:
    return len(found) == len(sides) and all(
        len(scores.preferred) == len(side.pairs)
        and not np.isnan(scores.preferred[np.concatenate(side.batches)]).any()
        for scores, side in zip(found, sides, strict=True)
    )


def _load(file: Path) -> list[LogProbs]:
    if not file.exists():
        return []
    with np.load(file) as stored:
        return [LogProbs(*scores) for scores in (stored["train"], stored["validation"])]


def _save(file: Path, found: Sequence[LogProbs]) -> None:
    train, validation = (np.stack(scores) for scores in found)
    partial = file.with_suffix(".part")
    with partial.open("wb") as handle:
        np.savez(handle, train=train, validation=validation)
    partial.replace(file)
