"""A training as a value: what one process, or each of several that train together, has to know."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import Interrupted, UserError
from configs.schema import HardwareConfig, TrainConfig


@dataclass(frozen=True)
class TrainFiles:
    """Where the stage reads and writes: rows, half-way states, trackers' files, the adapter."""

    train_rows: Path
    validation_rows: Path
    checkpoints: Path
    trackers: Path
    adapter: Path

    @classmethod
    def of_run(cls, run: Path) -> "TrainFiles":
        """The places in a run directory."""
        return cls(
            train_rows=run / "data" / "train.parquet",
            validation_rows=run / "data" / "validation.parquet",
            checkpoints=run / "checkpoints",
            trackers=run / "trackers",
            adapter=run / "adapter",
        )


class Training(NamedTuple):
    """A finished training: facts for the manifest, and the trainer's `log_history`."""

    facts: dict[str, Any]
    history: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """The arguments of `train_adapter`, which says what they are, and what it is spread over."""

    config: TrainConfig
    hardware: HardwareConfig
    checkpoint: Path
    base_name: str
    run_name: str
    max_length: int
    files: TrainFiles
    resume: bool

    def to_json(self) -> str:
        """For a process of its own."""
        told = {
            name: getattr(self, name) for name in ("base_name", "run_name", "max_length", "resume")
        }
        files = {name: str(path) for name, path in asdict(self.files).items()}
        return json.dumps(
            told
            | {
                "config": self.config.model_dump(mode="json"),
                "hardware": self.hardware.model_dump(mode="json"),
                "checkpoint": str(self.checkpoint),
                "files": files,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "TrainJob":
        """What `to_json` wrote."""
        told = json.loads(text)
        return cls(
            **told
            | {
                "config": TrainConfig.model_validate(told["config"]),
                "hardware": HardwareConfig.model_validate(told["hardware"]),
                "checkpoint": Path(told["checkpoint"]),
                "files": TrainFiles(**{name: Path(path) for name, path in told["files"].items()}),
            }
        )


def write_outcome(file: Path, outcome: Training | UserError | Interrupted) -> None:
    """Tell how a training in other processes ended."""
    match outcome:
        case Training(facts=facts, history=history):
            told: dict[str, Any] = {"facts": facts, "history": history}
        case UserError() as error:
            told = {"error": {"what": error.what, "where": error.where, "remedy": error.remedy}}
        case Interrupted() as error:
            told = {"interrupted": str(error)}
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(told), encoding="utf-8")
    partial.replace(file)


def read_outcome(file: Path) -> Training:
    """The finished training; raises the `UserError` or `Interrupted` that it ended with."""
    told = json.loads(file.read_text(encoding="utf-8"))
    if "error" in told:
        raise UserError(
            told["error"]["what"], where=told["error"]["where"], remedy=told["error"]["remedy"]
        )
    if "interrupted" in told:
        raise Interrupted(told["interrupted"])
    return Training(told["facts"], told["history"])
