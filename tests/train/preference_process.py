"""Prefers in a process that a test can kill; arguments: DATA OUTPUT CHECKPOINT CONFIG_JSON."""

import sys
from pathlib import Path

from configs.schema import TrainConfig
from tests.train.preference_pairs import build_trainer

data, output, checkpoint = map(Path, sys.argv[1:4])
trainer = build_trainer(TrainConfig.model_validate_json(sys.argv[4]), checkpoint, data, output)
trainer.train()
