"""A training over the nodes of a Ray cluster: as many workers of Ray Train as there are devices."""

from dataclasses import replace
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rich.console import Console

from configs.errors import UserError
from configs.ray_cluster import MAX_RETRIES, has_gpus
from train.job import Training, TrainJob, read_outcome
from train.launch import OUTCOME_FILE, launch, processes_folder
from train.launched import run
from train.processes import is_first, join


def launch_on_ray(job: TrainJob, console: Console) -> Training:
    """Train as `job.hardware` says: one device in this Ray task, several by Ray Train.

    Where a worker dies, all begin again from the last whole checkpoint, which has to be in a folder
    that every node finds under the same name. Errors: those of `train.launch.launch`.
    """
    if job.hardware.devices == 1:
        return launch(job, console)
    folder = processes_folder(job)
    outcome = folder / OUTCOME_FILE
    outcome.unlink(missing_ok=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job.to_json(), "outcome": str(outcome)},
        scaling_config=ScalingConfig(num_workers=job.hardware.devices, use_gpu=has_gpus()),
        run_config=RunConfig(
            name=job.run_name,
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=MAX_RETRIES),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise UserError(
            f"the workers that train together ended {MAX_RETRIES + 1} times: {error}",
            where=job.run_name,
            remedy="mend what is told there, then run the same command: it goes on from the last "
            "checkpoint",
        ) from error
    return read_outcome(outcome)


def train_worker(told: dict[str, str]) -> None:
    """One of the workers, which Ray has introduced to each other."""
    outcome = Path(told["outcome"])
    if outcome.exists():
        # Ray has begun again after an error that no repetition mends.
        return
    join()
    job = TrainJob.from_json(told["job"])
    # After another worker's death there are checkpoints of this very training.
    job = replace(job, resume=job.resume or any(job.files.checkpoints.glob("checkpoint-*")))
    if not run(job, outcome, Console(quiet=not is_first())):
        raise RuntimeError("ends the other workers")
