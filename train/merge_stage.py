"""The merge stage as a run knows it: what decides its output, and what that is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from configs.run_directory import RunDirectory, StageResult, run_stage
from configs.schema import RunConfig
from data.fingerprint import folder_fingerprint, model_fingerprint

if TYPE_CHECKING:
    from train.artefacts.yardstick import OpenGguf


def merge_stage(
    directory: RunDirectory,
    config: RunConfig,
    console: Console,
    *,
    find_opener: Callable[[], "OpenGguf"],
) -> StageResult:
    """Make the run's artefacts, unless that has been done.

    find_opener: gives what opens a GGUF in the engine that serves it; called when there is work.
    """

    def work(resume: bool) -> dict[str, Any]:
        from data.models.model_source import resolve_checkpoint
        from train.artefacts.build import make_artefacts

        facts = make_artefacts(
            config,
            directory.path,
            checkpoint=resolve_checkpoint(config.model),
            open_gguf=find_opener(),
            console=console,
        )
        return dict(facts)

    return run_stage(
        directory,
        "merge",
        settings={
            "name": config.name,
            "merge": config.merge.model_dump(mode="json"),
            "model": config.model.model_dump(mode="json"),
            "model_files": model_fingerprint(config.model),
            "further_adapters": [
                folder_fingerprint(one.path) for one in config.merge.further_adapters
            ],
            "quantization": config.train.quantization,
            "with_base": config.needs_base,
        },
        after=["prepare", "train"],
        outputs=[
            "artefacts",
            "merge/report.html",
            *(["merged"] if "bf16" in config.merge.artefacts else []),
        ],
        seed=config.train.seed,
        work=work,
    )
