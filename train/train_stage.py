"""The train stage as a run knows it: what decides its output, and what that is."""

from typing import Any

from rich.console import Console

from configs.run_directory import RunDirectory, StageResult, run_stage
from configs.schema import RunConfig
from data.fingerprint import model_fingerprint


def train_stage(
    directory: RunDirectory, config: RunConfig, console: Console, *, on_ray: bool = False
) -> StageResult:
    """Train the run's adapter, unless that has been done; on_ray: several devices by Ray Train."""

    def work(resume: bool) -> dict[str, Any]:
        from data.models.model_source import resolve_checkpoint
        from train.job import TrainFiles, TrainJob
        from train.report.page import write_report

        path = directory.path
        job = TrainJob(
            config=config.train,
            hardware=config.hardware,
            checkpoint=resolve_checkpoint(config.model),
            base_name=config.model.hub_id or config.model.name,
            run_name=config.name,
            max_length=config.model.max_length,
            files=TrainFiles.of_run(path),
            resume=resume,
        )
        if on_ray:
            from train.ray_launch import launch_on_ray

            training = launch_on_ray(job, console)
        else:
            from train.launch import launch

            training = launch(job, console)
        report = path / "train" / "report.html"
        report.parent.mkdir(exist_ok=True)
        write_report(report, config=config, facts=training.facts, history=training.history)
        return training.facts

    return run_stage(
        directory,
        "train",
        settings={
            # Where the losses are also sent does not change the adapter.
            "train": config.train.model_dump(mode="json", exclude={"trackers"}),
            "hardware": config.hardware.model_dump(mode="json"),
            "model": config.model.model_dump(mode="json"),
            "model_files": model_fingerprint(config.model),
        },
        after=["prepare"],
        outputs=["adapter", "train/report.html"],
        seed=config.train.seed,
        work=work,
    )
