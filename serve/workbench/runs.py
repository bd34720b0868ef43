"""Runs as the workbench shows them: how far each has come, its verdict, losses and reports.

Everything is read from the run directories, where stages may be at work and older versions may have
been: what cannot be read is left out of a run's card, and the others stay.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from configs.errors import UserError
from configs.load import load_config
from configs.run_directory import STAGES, RunDirectory, StageRecord, State
from configs.status import list_runs, stage_state
from data.training_log import of_training, series, thin
from serve.errors import nothing_there

REPORT = "report.html"
REPORTS: Mapping[str, str] = {
    "data": "Data",
    "train": "Training",
    "merge": "Merge",
    "evals": "Evaluation",
}
"""Titles of the reports by the folder that each stands in."""
NOT_STARTED = "not run"
MAX_POINTS = 400
"""Of a curve; it is drawn a few hundred pixels wide."""
MAX_KEPT = 128

T = TypeVar("T", bound=BaseModel)
V = TypeVar("V")
Point = tuple[int, float]


class Losses(TypedDict):
    """Losses by optimizer step, from 1."""

    train: list[Point]
    validation: list[Point]


class ReportLink(TypedDict):
    """A report that is there; path: on this server."""

    title: str
    path: str


class RunCard(TypedDict):
    """A run in short.

    is_served: whether its variant answers here; stages: the state of each; verdict, promote and
    reasons (sentences): of the whole evaluation; delta, interval and baseline: of its first primary
    task, shares of 1.
    """

    name: str
    description: str
    is_served: bool
    stages: dict[str, str]
    verdict: str | None
    promote: bool | None
    reasons: list[str]
    delta: float | None
    interval: tuple[float, float] | None
    baseline: str | None
    losses: Losses
    reports: list[ReportLink]


class _Record(BaseModel):
    state: State


class _Manifest(BaseModel):
    stages: dict[str, _Record]


class _Baseline(BaseModel):
    name: str


class _Task(BaseModel):
    role: str
    delta: FiniteFloat
    interval: tuple[FiniteFloat, FiniteFloat]
    baseline: _Baseline


class _Comparison(BaseModel):
    """What of `comparison.json` is shown; the evaluation keeps far more in it."""

    verdict: str
    promote: bool
    reasons: list[str] = []
    tasks: list[_Task] = Field(min_length=1)

    @property
    def primary(self) -> _Task:
        """The task that the verdict rests on, the first of several."""
        return next((task for task in self.tasks if task.role == "primary"), self.tasks[0])


class _Log(BaseModel):
    step: int
    loss: float | None = None
    eval_loss: float | None = None
    train_loss: float | None = None


class _TrainerState(BaseModel):
    log_history: list[_Log]


def describe_runs(folder: Path, served: Sequence[str]) -> list[RunCard]:
    """The cards of all runs in `folder`, by name; served: the names of those that answer here."""
    return [_describe(run, is_served=run.path.name in served) for run in list_runs(folder)]


def find_run(folder: Path, name: str) -> Path:
    """The directory of the run of that name. Errors: 404 `ApiError` where `folder` lists none."""
    for run in list_runs(folder):
        if run.path.name == name:
            return run.path
    raise nothing_there(f"runs/{name}")


def find_report(folder: Path, name: str, stage: str) -> Path:
    """The report in the folder `stage` (of `REPORTS`) of a run.

    Errors: 404 `ApiError` where the run or the report is not there, or leads out of the run.
    """
    file = _report(find_run(folder, name), stage)
    if file is None:
        raise nothing_there(f"runs/{name}/{stage}/{REPORT}")
    return file


def _describe(run: RunDirectory, *, is_served: bool) -> RunCard:
    name = run.path.name
    compared = _read(_Comparison, run.path / "evals" / "comparison.json")
    return RunCard(
        name=name,
        description=_by_stamp(_description, run.config_file) or "",
        is_served=is_served,
        stages=_stages(run),
        verdict=compared.verdict if compared else None,
        promote=compared.promote if compared else None,
        reasons=compared.reasons if compared else [],
        delta=compared.primary.delta if compared else None,
        interval=compared.primary.interval if compared else None,
        baseline=compared.primary.baseline.name if compared else None,
        losses=_losses(run.path / "checkpoints"),
        reports=[
            ReportLink(title=title, path=f"/workbench/runs/{quote(name, safe='')}/{stage}/{REPORT}")
            for stage, title in REPORTS.items()
            if _report(run.path, stage)
        ],
    )


def _stages(run: RunDirectory) -> dict[str, str]:
    manifest = _read(_Manifest, run.manifest_file)
    states = {stage: record.state for stage, record in manifest.stages.items()} if manifest else {}
    # The lock is tried only where it can matter: trying takes it, for an instant, from a command.
    is_locked = "running" not in states.values() or _is_locked(run)
    return {
        stage: stage_state(StageRecord(state=states[stage]), is_locked=is_locked)
        if stage in states
        else NOT_STARTED
        for stage in STAGES
    }


def _is_locked(run: RunDirectory) -> bool:
    try:
        return run.is_locked()
    except OSError:  # A folder that only others may write to tells nothing.
        return True


def _report(run: Path, stage: str) -> Path | None:
    if stage not in REPORTS:
        return None
    try:
        file = (run / stage / REPORT).resolve(strict=True)
        return file if file.is_file() and file.is_relative_to(run.resolve()) else None
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None


def _losses(checkpoints: Path) -> Losses:
    """Out of the newest checkpoint whose log can be read: each holds that of all steps before."""
    for state in sorted(checkpoints.glob("checkpoint-*/trainer_state.json"), key=_step)[::-1]:
        losses = _by_stamp(_read_losses, state)
        if losses:
            return losses
    return Losses(train=[], validation=[])


def _step(state: Path) -> int:
    number = state.parent.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def _by_stamp(read: Callable[[Path, int, int], V | None], file: Path) -> V | None:
    """What `read` makes of a file, read anew only when that has changed; None without a file."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return read(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=MAX_KEPT)
def _description(file: Path, mtime_ns: int, num_bytes: int) -> str | None:
    try:
        return load_config(file).description
    except UserError:
        return None


@lru_cache(maxsize=MAX_KEPT)
def _read_losses(file: Path, mtime_ns: int, num_bytes: int) -> Losses | None:
    state = _read(_TrainerState, file)
    if state is None:
        return None
    history = of_training([log.model_dump(exclude_none=True) for log in state.log_history])
    train, validation = (
        [(point.step, point.value) for point in thin(series(history, name), MAX_POINTS)]
        for name in ("loss", "eval_loss")
    )
    return Losses(train=train, validation=validation)


def _read(model: type[T], file: Path) -> T | None:
    """The file's content, or None where there is none, or something else."""
    try:
        return model.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
