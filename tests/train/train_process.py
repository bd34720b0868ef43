"""Trains in a process that a test can kill; arguments: FOLDER CHECKPOINT CONFIG_JSON RESUME."""

import sys
from pathlib import Path

from rich.console import Console

from configs.schema import TrainConfig
from train.adapter import TrainFiles, train_adapter

folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
train_adapter(
    TrainConfig.model_validate_json(sys.argv[3]),
    checkpoint=checkpoint,
    files=TrainFiles(
        folder / "train.parquet",
        folder / "validation.parquet",
        folder / "checkpoints",
        folder / "adapter",
    ),
    resume=sys.argv[4] == "resume",
    console=Console(quiet=True),
)
