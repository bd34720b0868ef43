"""The evaluate stage as a run knows it: what decides its output, and what that is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from configs.evaluation_schema import RecordedBaseline
from configs.run_directory import RunDirectory, StageResult, run_stage
from configs.schema import RunConfig
from data.fingerprint import file_sha256
from data.votes import VOTES_FILE

if TYPE_CHECKING:
    from evals.stage import ServeSide


def evaluate_stage(
    directory: RunDirectory,
    config: RunConfig,
    console: Console,
    *,
    serve_side: Callable[[RunDirectory, RunConfig], "ServeSide"],
) -> StageResult:
    """Evaluate the run's variant, unless that has been done.

    serve_side: how the run's base or variant is served; called when there is work.
    """

    def work(resume: bool) -> dict[str, Any]:
        from evals.stage import evaluate_run

        return evaluate_run(
            directory, config, serve_side=serve_side(directory, config), console=console
        )

    return run_stage(
        directory,
        "evaluate",
        settings={
            "name": config.name,
            "model": config.model.name,
            "evaluation": config.evaluation.model_dump(mode="json"),
            "recording": _recording_fingerprint(config),
            "engine": config.serve.engine.model_dump(mode="json"),
            "context_length": config.serve.context_length,
            "num_slots": config.serve.num_slots,
            **_votes_fingerprint(directory),
        },
        after=["prepare", "merge"],
        outputs=[
            "evals/comparison.json",
            "evals/report.html",
            "evals/report.md",
            "evals/samples.jsonl",
        ],
        seed=config.evaluation.seed,
        work=work,
    )


def _recording_fingerprint(config: RunConfig) -> str:
    """What changes with the recorded baseline's content; empty where there is none."""
    baseline = config.evaluation.baseline
    return file_sha256(baseline.path) if isinstance(baseline, RecordedBaseline) else ""


def _votes_fingerprint(directory: RunDirectory) -> dict[str, str]:
    """What changes with the votes that the run's server has kept; nothing where there are none."""
    file = directory.path / VOTES_FILE
    return {"votes": file_sha256(file)} if file.exists() else {}
