"""What an evaluation leaves in its folder: result, reports, recordings, inspect's own viewer."""

import json
from collections.abc import Sequence
from pathlib import Path

from configs.evaluation_schema import HostedBaseline
from configs.run_directory import write_whole
from configs.schema import RunConfig
from data.cache import WRITE_ERRORS, disk_error
from data.compared_samples import SAMPLES_FILE
from evals.gather import Gathered
from evals.log_bundle import write_log_bundle
from evals.recording import public_address, write_recording
from evals.report.markdown import render_markdown
from evals.report.page import render_report
from evals.results import ComparisonResult
from evals.samples_file import write_samples
from evals.sides import SideName

LOGS_FOLDER = "logs"
VIEWER_FOLDER = "log-viewer"


def write_outputs(
    folder: Path,
    result: ComparisonResult,
    *,
    config: RunConfig,
    found: Gathered,
    commands: Sequence[str],
) -> None:
    """Write everything below `folder`, comparison.json last: it says that the rest is complete."""
    try:
        for side in found.prompted:
            write_side(folder / "recordings" / f"{side}.jsonl", side, found, config=config)
        logs = folder / LOGS_FOLDER
        bundle = write_log_bundle(logs, folder / VIEWER_FOLDER) if found.prompted else None
        details = _details(found)
        report = render_report(
            result,
            config=config,
            evidence=found.evidence,
            checks=found.checks,
            commands=commands,
            details=details,
            log_bundle=bundle,
        )
        markdown = render_markdown(
            result,
            config=config,
            evidence=found.evidence,
            checks=found.checks,
            commands=commands,
            details=details,
        )
        write_whole(folder / "report.html", report)
        write_whole(folder / "report.md", markdown)
        write_samples(folder / SAMPLES_FILE, result["tasks"], found.evidence)
        write_whole(folder / "comparison.json", json.dumps(result, indent=2) + "\n")
    except OSError as error:
        if error.errno in WRITE_ERRORS:
            raise disk_error(error, folder) from error
        raise


def write_side(file: Path, side: SideName, found: Gathered, *, config: RunConfig) -> None:
    """Keep a side's answers as a recording; one that was recorded already stays the file it is."""
    target, hosted = found.targets[side], config.evaluation.baseline
    if target.recording is not None:
        return
    is_hosted = side == "baseline" and isinstance(hosted, HostedBaseline)
    write_recording(
        file,
        target=target,
        tasks=[(one.task, one.with_examples) for one in found.prompted[side]],
        answers=found.answers[side],
        price=hosted.price if is_hosted and isinstance(hosted, HostedBaseline) else None,
    )


def _details(found: Gathered) -> dict[str, str]:
    """Who was asked where; servers of our own have another port each time, which tells nothing."""
    told: dict[str, str] = {}
    for side, target in found.targets.items():
        if side == "baseline":
            told["Address of the baseline"] = public_address(target.base_url)
        elif target.revision:
            told[f"SHA-256 of the {side}'s artefact"] = target.revision
    return told
