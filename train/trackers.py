"""Experiment trackers by name: the losses go there too, and stay on this machine unless asked.

transformers has the callbacks that log; here is where each one writes, how it begins and ends, and
what to do when its package or its key is missing.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    MLflowCallback,
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
)

from configs.errors import Interrupted, UserError
from configs.schema import TrackerName

# The trackers' packages are extras, imported by those alone who name them.
# ruff: noqa: PLC0415

logger = logging.getLogger(__name__)

PROJECT = "tunery"
NAME_FILE = "name"
NEEDED_MODULES: dict[TrackerName, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    # Its database; the package that has all of MLflow brings a server and scikit-learn too.
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and as what a training is tracked; start_step: the optimizer steps behind it."""

    folder: Path
    name: str
    start_step: int


@dataclass(frozen=True, kw_only=True)
class Trackers:
    """Open trackers: callbacks for the trainer, and its arguments `run_name` and `project`."""

    callbacks: Sequence[TrainerCallback]
    run_name: str
    project: str = PROJECT


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raise `UserError` for a tracker whose package is not installed."""
    for name in names:
        missing = [one for one in NEEDED_MODULES[name] if importlib.util.find_spec(one) is None]
        if missing:
            raise UserError(
                f"the tracker {name} is not installed (there is no {' and no '.join(missing)})",
                where="train.trackers",
                remedy=f'pip install "tunery[{name}]", or leave {name} out',
            )


@contextmanager
def open_trackers(
    names: Sequence[TrackerName], *, folder: Path, run_name: str, start_step: int
) -> Iterator[Trackers]:
    """The trackers for one training; closed as finished, or as failed where the block raises.

    They write to `folder`, each below its own name: nothing leaves the machine but by Weights &
    Biases where a key for it is set, and by the addresses in the trackers' own environment
    variables. start_step: 0 begins a new run under a name of its own, another one goes on with it.
    """
    check_trackers(names)
    name = _tracked_name(folder, run_name, start_step) if names else run_name
    with ExitStack() as stack:
        callbacks = [
            stack.enter_context(
                OPENERS[one](Place(folder=folder / one, name=name, start_step=start_step))
            )
            for one in dict.fromkeys(names)
        ]
        yield Trackers(callbacks=callbacks, run_name=name)


def _tracked_name(folder: Path, run_name: str, start_step: int) -> str:
    """The name of the attempt: kept when it is resumed, so that its curve goes on."""
    file = folder / NAME_FILE
    if start_step == 0 or not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{run_name}-{datetime.now(UTC):%Y%m%d-%H%M%S}", encoding="utf-8")
    return file.read_text(encoding="utf-8")


@contextmanager
def _open_tensorboard(place: Place) -> Iterator[TrainerCallback]:
    from torch.utils.tensorboard import SummaryWriter

    # A killed run has logged steps that the resumed one repeats: their first values are dropped.
    purge = place.start_step + 1 if place.start_step else None
    writer = SummaryWriter(str(place.folder / place.name), purge_step=purge)
    callback = TensorBoardCallback(writer)
    # Where it begins anew if something is logged after training.
    callback.logging_dir = writer.log_dir
    try:
        yield callback
    finally:
        writer.close()


@contextmanager
def _open_trackio(place: Place) -> Iterator[TrainerCallback]:
    # Read at the package's import, and its only setting.
    os.environ.setdefault("TRACKIO_DIR", str(place.folder.resolve()))
    import trackio

    try:
        yield TrackioCallback()
    finally:
        if trackio.context_vars.current_run.get() is not None:
            trackio.finish()


@contextmanager
def _open_wandb(place: Place) -> Iterator[TrainerCallback]:
    import wandb

    place.folder.mkdir(parents=True, exist_ok=True)
    mode = None
    if "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False):
        # Without a key nobody has asked to send; and a question would wait for an answer for ever.
        mode = "offline"
        logger.warning(
            "wandb has no key: it writes to %s alone, and `wandb sync` sends that later",
            place.folder,
        )
    try:
        run = wandb.init(
            project=PROJECT,
            name=place.name,
            id=place.name,
            resume="allow",
            dir=place.folder,
            mode=mode,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True
            ),
        )
    except wandb.Error as error:
        raise UserError(
            f"wandb could not start: {error}",
            where="train.trackers",
            remedy="check the key and the network, or set WANDB_MODE=offline and send it later "
            "with `wandb sync`",
        ) from error
    try:
        yield WandbCallback()
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


@contextmanager
def _open_mlflow(place: Place) -> Iterator[TrainerCallback]:
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    place.folder.mkdir(parents=True, exist_ok=True)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        folder = place.folder.resolve()
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        if mlflow.get_experiment_by_name(PROJECT) is None:
            # The default place is the folder that the command was called from.
            artifacts = (folder / "artifacts").as_uri()
            mlflow.create_experiment(PROJECT, artifact_location=artifacts)
    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=place.name, tags={"start_step": str(place.start_step)})
    try:
        yield MLflowCallback()
    except BaseException as error:
        mlflow.end_run("KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED")
        raise
    mlflow.end_run()


OPENERS: dict[TrackerName, Callable[[Place], AbstractContextManager[TrainerCallback]]] = {
    "tensorboard": _open_tensorboard,
    "trackio": _open_trackio,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}
