"""The trackers that are installed track a real training; the suite's own extra has tensorboard."""

import logging
import os
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import Trainer

from configs.errors import UserError
from configs.schema import TrackerName, TrainConfig
from configs.telemetry import NO_TELEMETRY
from tests.train.no_network import REACHED
from tests.train.tiny_training import build_trainer, train, train_until
from train.job import TrainFiles
from train.trackers import check_trackers, open_trackers

ROOT = Path(__file__).parents[2]
WATCHED = """
import runpy
from tests.train.no_network import watch_network

watch_network()
runpy.run_module("tests.train.train_process", run_name="__main__", alter_sys=True)
"""
# What would keep a library quiet here without our doing: of the suite, of a pipeline.
QUIET_ALREADY = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CI", "GITHUB_ACTIONS", *NO_TELEMETRY)


def track(
    names: list[TrackerName], folder: Path, checkpoint: Path, *, until: int | None = None
) -> Trainer:
    """Train with trackers, and from a checkpoint on if there is one; to the end or until a kill."""
    start_step = max((int(p.name[11:]) for p in folder.glob("c/checkpoint-*")), default=0)
    with open_trackers(
        names, folder=folder / "trackers", run_name="mine", start_step=start_step
    ) as trackers:
        trainer = build_trainer(
            folder / "c",
            checkpoint,
            callbacks=trackers.callbacks,
            run_name=trackers.run_name,
            project=trackers.project,
        )
        if until:
            train_until(until, trainer)
        else:
            train(trainer)
    return trainer


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    return {int(log["step"]): log[name] for log in trainer.state.log_history if name in log}


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_training_without_trackers_reaches_no_address(
    is_allowed: bool, train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = train_config.model_copy(update={"num_steps": 2})
    assert config.trackers == []
    environment = {k: v for k, v in os.environ.items() if k not in QUIET_ALREADY}
    result = subprocess.run(
        [
            *(sys.executable, "-c", WATCHED),
            *(str(train_files.adapter.parent), str(tiny_checkpoint)),
            *(config.model_dump_json(), "fresh"),
        ],
        cwd=ROOT,
        env=environment if is_allowed else environment | NO_TELEMETRY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (train_files.adapter / "adapter_model.safetensors").exists()
    # Where it is allowed TRL does reach out: what is watched for can be seen.
    assert (REACHED in result.stderr) == is_allowed


def test_tensorboard_has_the_losses_of_the_training(tiny_checkpoint: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = track(["tensorboard"], tmp_path, tiny_checkpoint)
    (folder,) = (tmp_path / "trackers" / "tensorboard").iterdir()
    assert folder.name.startswith("mine-")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    for tag, name in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        read = {event.step: event.value for event in events.Scalars(tag)}
        assert read == pytest.approx(logged(trainer, name), rel=1e-6)
        assert len(read) == {"loss": 12, "eval_loss": 4}[name]


def test_a_resumed_training_goes_on_with_its_curve(tiny_checkpoint: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    track(["tensorboard"], tmp_path, tiny_checkpoint, until=6)
    trainer = track(["tensorboard"], tmp_path, tiny_checkpoint)
    (folder,) = (tmp_path / "trackers" / "tensorboard").iterdir()
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    # Steps 5 and 6 were logged by both; the first values are dropped.
    read = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in read] == list(range(1, 13))
    assert dict(read) == pytest.approx(logged(trainer, "loss"), rel=1e-6)


def test_a_training_from_the_start_is_a_run_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    def name(start_step: int) -> str:
        with open_trackers(
            ["tensorboard"], folder=tmp_path, run_name="mine", start_step=start_step
        ) as trackers:
            return trackers.run_name

    (tmp_path / "name").write_text("mine-of-yesterday")
    assert name(5) == "mine-of-yesterday"
    assert name(0) != "mine-of-yesterday"
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {
        "mine-of-yesterday",
        name(5),
    }


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_has_the_losses_of_the_training(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set and taken away again, for trackio's place is told by the environment alone.
    monkeypatch.setenv("TRACKIO_DIR", "")
    monkeypatch.delenv("TRACKIO_DIR")
    trainer = track(["trackio"], tmp_path, tiny_checkpoint)
    with sqlite3.connect(tmp_path / "trackers" / "trackio" / "tunery.db") as database:
        rows = [str(row) for row in database.execute("SELECT * FROM metrics")]
    losses = logged(trainer, "loss")
    assert len(losses) == 12
    for loss in losses.values():
        assert any(str(loss) in row for row in rows)


def test_wandb_without_a_key_stays_on_this_machine(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with caplog.at_level(logging.WARNING):
        track(["wandb"], tmp_path, tiny_checkpoint)
    assert "wandb has no key" in caplog.text
    (file,) = (tmp_path / "trackers" / "wandb" / "wandb").glob("offline-run-*/*.wandb")
    # Its own process writes it.
    deadline = time.monotonic() + 30
    while b"train/loss" not in file.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_mlflow_has_the_losses_and_how_the_run_ended(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    trainer = track(["mlflow"], tmp_path, tiny_checkpoint)
    with (
        pytest.raises(RuntimeError),
        open_trackers(["mlflow"], folder=tmp_path / "trackers", run_name="mine", start_step=4),
    ):
        raise RuntimeError
    with sqlite3.connect(tmp_path / "trackers" / "mlflow" / "mlflow.db") as database:
        read = dict(database.execute("SELECT step, value FROM metrics WHERE key = 'loss'"))
        states = list(database.execute("SELECT status FROM runs ORDER BY start_time"))
    assert read == pytest.approx(logged(trainer, "loss"))
    assert states == [("FINISHED",), ("FAILED",)]
    # Nothing beside the run's own folder.
    assert not (ROOT / "mlruns").exists()
    assert not (ROOT / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("tensorboard", "tensorboard"),
        ("trackio", "trackio"),
        ("wandb", "wandb"),
        ("mlflow", "mlflow"),
        ("mlflow", "sqlalchemy"),
    ],
)
def test_a_tracker_that_is_not_installed_names_its_extra(
    name: TrackerName, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it were not installed, for Python's own import as well.
    monkeypatch.setitem(sys.modules, package, None)
    for check in (
        lambda: check_trackers([name]),
        lambda: open_trackers([name], folder=tmp_path, run_name="mine", start_step=0).__enter__(),
    ):
        with pytest.raises(UserError, match=f"no {package}") as told:
            check()
        assert told.value.remedy is not None
        assert f'pip install "tunery[{name}]"' in told.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_no_trackers_write_nothing(tmp_path: Path) -> None:
    with open_trackers([], folder=tmp_path, run_name="mine", start_step=0) as trackers:
        assert trackers.callbacks == []
        assert trackers.run_name == "mine"
    assert list(tmp_path.iterdir()) == []
