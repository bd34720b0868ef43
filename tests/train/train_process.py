"""Trains in a process that a test can end; arguments: FOLDER CHECKPOINT CONFIG_JSON RESUME.

Prints a line when the first step begins, and ends as the command does when it is interrupted.
"""

import io
import sys
from pathlib import Path

from rich.console import Console

from configs.errors import INTERRUPTED_STATUS, Interrupted
from configs.schema import TrainConfig
from train import adapter, progress
from train.adapter import train_adapter
from train.job import TrainFiles


class TellStart(progress.TrainingProgress):
    """Says when the training loop begins."""

    def on_train_begin(self, *arguments: object, **options: object) -> None:
        super().on_train_begin(*arguments, **options)  # type: ignore[arg-type]
        print("training", flush=True)


setattr(adapter, "TrainingProgress", TellStart)  # noqa: B010 - mypy knows it as imported there
folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
try:
    train_adapter(
        TrainConfig.model_validate_json(sys.argv[3]),
        checkpoint=checkpoint,
        base_name="tiny",
        run_name="colours",
        max_length=256,
        files=TrainFiles(
            folder / "train.parquet",
            folder / "validation.parquet",
            folder / "checkpoints",
            folder / "trackers",
            folder / "adapter",
        ),
        resume=sys.argv[4] == "resume",
        console=Console(file=io.StringIO()),
    )
except Interrupted:
    sys.exit(INTERRUPTED_STATUS)
