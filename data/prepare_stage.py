"""The prepare stage as a run knows it: what decides its output, and what that is."""

from typing import Any

from rich.console import Console

from configs.run_directory import RunDirectory, StageResult, run_stage
from configs.schema import RunConfig
from data.fingerprint import data_fingerprint, model_fingerprint


def prepare_stage(
    directory: RunDirectory, config: RunConfig, console: Console, *, on_ray: bool = False
) -> StageResult:
    """Prepare the run's rows, unless that has been done; on_ray: on all nodes of the cluster."""

    def work(resume: bool) -> dict[str, Any]:
        from data.prepare import prepare

        workers = None
        if on_ray:
            from data.steps.cluster_workers import ClusterWorkers

            workers = ClusterWorkers(config.data.num_workers)
        return prepare(config, directory.path / "data", console=console, workers=workers)

    return run_stage(
        directory,
        "prepare",
        settings={
            "data": config.data.model_dump(mode="json"),
            "source_files": data_fingerprint(config),
            "evaluation_sources": [
                one.model_dump(mode="json") for one in config.evaluation_sources
            ],
            "model": config.model.model_dump(mode="json"),
            "model_files": model_fingerprint(config.model),
        },
        after=[],
        outputs=["data"],
        seed=config.train.seed,
        work=work,
    )
