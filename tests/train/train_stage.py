"""The train stage as the tests call it: on prepared rows of a tiny model, without a word."""

from pathlib import Path

from rich.console import Console

from configs.schema import TrainConfig
from train.adapter import train_adapter
from train.job import TrainFiles, Training


def train(
    config: TrainConfig, files: TrainFiles, checkpoint: Path, *, resume: bool = False
) -> Training:
    """Train on `files`; sequences of up to 256 tokens."""
    return train_adapter(
        config,
        checkpoint=checkpoint,
        base_name="tiny",
        run_name="colours",
        max_length=256,
        files=files,
        resume=resume,
        console=Console(quiet=True),
    )
