"""The stages of a run as tasks of a Ray cluster, each with what it needs of a node."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from configs.ray_cluster import Resources, has_gpus, run_remotely
from configs.run_directory import RunDirectory, StageName, StageResult
from configs.run_storage import RunStorage
from configs.schema import RunConfig


class WorkStage(Protocol):
    """Does one stage of a run, unless that has been done."""

    def __call__(
        self, stage: StageName, directory: RunDirectory, config: RunConfig, console: Console
    ) -> StageResult:
        """Returns how it ended."""
        ...


class WorkStageOnRay(Protocol):
    """The same, told whether it is a task of a cluster."""

    def __call__(
        self,
        stage: StageName,
        directory: RunDirectory,
        config: RunConfig,
        console: Console,
        *,
        on_ray: bool,
    ) -> StageResult:
        """Returns how it ended."""
        ...


@dataclass(frozen=True)
class StagesOnRay:
    """Sends each stage to a node.

    Where its worker dies, another one goes on from what the stage has left in the run directory,
    which has to be in a folder that all nodes share; or, with storage, in the store: then the stage
    goes on from what has been pushed.
    """

    work_stage: WorkStageOnRay
    storage: RunStorage | None = None

    def work(
        self, stage: StageName, directory: RunDirectory, config: RunConfig, console: Console
    ) -> StageResult:
        """See `WorkStage`; the console stays here, the task's own words come by Ray."""
        if self.storage is not None:
            self.storage.push(directory.path)
        result = run_remotely(
            _work,
            self.work_stage,
            stage,
            directory.path.resolve(),
            self.storage,
            resources=_resources(stage, config),
        )
        if self.storage is not None:
            self.storage.pull(directory.path)
        return result


def _resources(stage: StageName, config: RunConfig) -> Resources:
    """One card for what loads a model; nothing for what hands its work on to other tasks."""
    hands_on = stage == "prepare" or (stage == "train" and config.hardware.devices > 1)
    if hands_on:
        return Resources(num_cpus=0)
    return Resources(num_cpus=1, num_gpus=1 if has_gpus() else 0)


def _work(
    work_stage: WorkStageOnRay, stage: StageName, path: Path, storage: RunStorage | None
) -> StageResult:
    if storage is not None:
        path.mkdir(parents=True, exist_ok=True)
        storage.pull(path)
    directory = RunDirectory(path)
    # As in the command: it warns on every CPU that an optional kernel package is absent.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        return work_stage(
            stage, directory, directory.load_config(), Console(highlight=False), on_ray=True
        )
    finally:
        if storage is not None:
            storage.push(path)
