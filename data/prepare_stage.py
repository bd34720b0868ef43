"""The prepare stage as a run knows it: what decides its output, and what that is."""

from typing import Any

from rich.console import Console

from configs.run_directory import RunDirectory, StageResult, run_stage
from configs.schema import RunConfig
from data.fingerprint import data_fingerprint, model_fingerprint


def prepare_stage(directory: RunDirectory, config: RunConfig, console: Console) -> StageResult:
    """Prepare the run's rows, unless that has been done."""

    def work(resume: bool) -> dict[str, Any]:
        from data.prepare import prepare

        return prepare(config, directory.path / "data", console=console)

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
