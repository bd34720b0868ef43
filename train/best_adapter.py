"""Early stopping: the adapter with the lowest validation loss is kept beside the checkpoints.

transformers' own callback needs a whole checkpoint at each validation, and reloads the best one.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.errors import UserError
from data.cache import new_folder
from train.checkpoints import step_of
from train.processes import is_first
from train.whole_adapter import whole_tensors

FACTS_FILE = "validation.json"


class Validation(NamedTuple):
    """The validation loss after an optimizer step."""

    step: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class BestAdapter:
    """A saved adapter: its folder, and the validation that it was the best of."""

    path: Path
    step: int
    loss: float


class KeepBestAdapter(TrainerCallback):
    """Saves the adapter at each lowest validation loss; stops after `patience` ones without.

    folder: `checkpoints/best`, with one folder a step. What is best is told by the trainer's own
    log, which each checkpoint holds, so that a resumed run counts on as the unbroken one does. An
    adapter is kept while a checkpoint needs it, and removed when it is younger than the checkpoint
    that is resumed from.
    """

    def __init__(self, folder: Path, *, patience: int) -> None:
        self._folder = folder
        self._patience = patience

    def on_train_begin(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        if is_first():
            for step, path in _saved(self._folder).items():
                if step > state.global_step:
                    shutil.rmtree(path)
        best = lowest(validations(state.log_history))
        if best and best.step not in _saved(self._folder):
            raise UserError(
                f"the best adapter so far, of step {best.step}, is gone",
                where=self._folder,
                remedy=f"remove {self._folder.parent}: training then starts anew",
            )

    def on_evaluate(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **objects: Any,  # noqa: ANN401
    ) -> None:
        model: PeftModel = objects["model"]
        history = validations(state.log_history)
        best = lowest(history)
        assert best is not None
        if best.step == state.global_step:
            tensors = whole_tensors(model)
            if not is_first():
                return
            with new_folder(self._folder / f"step-{best.step}") as folder:
                # No look at the hub for whether the base's vocabulary has grown.
                model.save_pretrained(str(folder), state_dict=tensors, save_embedding_layers=False)
                (folder / FACTS_FILE).write_text(json.dumps(best._asdict()), encoding="utf-8")
        elif num_since_lowest(history) >= self._patience:
            control.should_training_stop = True
            # From a checkpoint at the stop, a resumed run would take a step more than this one.
            control.should_save = False

    def on_save(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        if not is_first():
            return
        saved = _saved(self._folder)
        checkpoints = [step_of(path) for path in Path(str(args.output_dir)).glob("checkpoint-*")]
        needed = {
            max((step for step in saved if step <= checkpoint), default=None)
            for checkpoint in checkpoints
        }
        for step, path in saved.items():
            if step not in needed:
                shutil.rmtree(path)


def best_adapter(folder: Path) -> BestAdapter | None:
    """The best adapter of the training that has just ended; None without one."""
    saved = _saved(folder)
    if not saved:
        return None
    path = saved[max(saved)]
    facts = json.loads((path / FACTS_FILE).read_text(encoding="utf-8"))
    return BestAdapter(path=path, step=facts["step"], loss=facts["loss"])


def validations(history: Sequence[Mapping[str, float]]) -> list[Validation]:
    """The validation losses of a trainer's `log_history`; not those that were taken after its end.

    The trainer ends a training with a summary, which has its mean loss.
    """
    of_training = takewhile(lambda log: "train_loss" not in log, history)
    return [
        Validation(int(log["step"]), log["eval_loss"]) for log in of_training if "eval_loss" in log
    ]


def lowest(history: Sequence[Validation]) -> Validation | None:
    """The first of the lowest losses; None before the first validation."""
    return min(history, key=lambda one: one.loss, default=None)


def num_since_lowest(history: Sequence[Validation]) -> int:
    """Validations since the lowest loss, itself not counted."""
    best = lowest(history)
    return len(history) - 1 - history.index(best) if best else 0


def _saved(folder: Path) -> dict[int, Path]:
    """Whole adapters by step; a half-written one has another name."""
    return {step_of(path): path for path in folder.glob("step-*")}
