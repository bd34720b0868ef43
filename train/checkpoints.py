"""Checkpoints that can be trusted after a kill: only what was written to its end counts."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Written last, so its presence says that everything before it reached the disk.
MARKER = "complete"


class MarkComplete(TrainerCallback):
    """Marks a checkpoint after the trainer has written and flushed all of it."""

    def on_save(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any  # noqa: ANN401
    ) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        for file in folder.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        (folder / MARKER).touch()


def latest_complete(folder: Path) -> Path | None:
    """The newest whole checkpoint of `folder`; half-written ones are removed."""
    whole: list[Path] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / MARKER).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
