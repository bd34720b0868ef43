"""Checkpoints that can be trusted after a kill: only what was written to its end counts."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train.processes import is_first, wait_for_all

# Written last, so its presence says that everything before it reached the disk.
MARKER = "complete"


class MarkComplete(TrainerCallback):
    """Marks a checkpoint after the trainer has written and flushed all of it."""

    def on_save(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        # Each process writes the state of its own random numbers.
        wait_for_all()
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        for file in folder.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        (folder / MARKER).touch()


def latest_resumable(folder: Path) -> Path | None:
    """The newest whole checkpoint of `folder` to go on from; half-written ones are removed.

    The one after the last step is not gone on from: transformers' trainer would take a step more
    than was asked for. The one before it leads to the same end.
    """
    resumable: list[Path] = []
    if is_first():
        for checkpoint in folder.glob("checkpoint-*"):
            if not (checkpoint / MARKER).exists():
                shutil.rmtree(checkpoint)
    wait_for_all()
    for checkpoint in folder.glob("checkpoint-*"):
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        if state["global_step"] < state["max_steps"]:
            resumable.append(checkpoint)
    return max(resumable, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimizer steps that a checkpoint has behind it."""
    return int(checkpoint.name.split("-")[1])
