"""A training of the 24B with nothing to spare memory but checkpointing, on one 24 GB card."""

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.load import load_config
from configs.schema import RunConfig

Changed = Callable[..., RunConfig]
ROOT = Path(__file__).parents[3]
TRAIN = {
    "quantization": "nf4",
    "lora": {"rank": 32, "alpha": 64},
    "num_epochs": 1.0,
    "batch_rows": 16,
    "micro_batch_rows": 1,
    "optimizer": "adamw_8bit",
    "gradient_checkpointing": True,
}


@pytest.fixture(scope="session")
def changed() -> Changed:
    """Makes the run of fixture `legal` with other settings of `train`."""
    settings = load_config(ROOT / "configs" / "legal.yaml").model_dump()
    settings["model"]["max_length"] = 4096

    def make(**train: object) -> RunConfig:
        return RunConfig.model_validate(settings | {"train": TRAIN | train})

    return make


@pytest.fixture(scope="session")
def legal(changed: Changed) -> RunConfig:
    return changed()
