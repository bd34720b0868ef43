"""What the command tells of runs: how far each has come, and what a stage has done."""

from pathlib import Path
from typing import Any

from rich.table import Table

from configs.errors import UserError
from configs.run_directory import STAGES, RunDirectory, StageName, StageRecord

STYLES = {"done": "green", "running": "yellow", "interrupted": "yellow", "failed": "red"}


def list_runs(runs_folder: Path) -> list[RunDirectory]:
    """The run directories below a folder, by name."""
    return [RunDirectory(file.parent) for file in sorted(runs_folder.glob("*/config.yaml"))]


def stage_state(record: StageRecord | None, *, is_locked: bool) -> str:
    """One word for a stage: a `running` one whose process is gone was interrupted."""
    if record is None:
        return "-"
    if record["state"] == "running" and not is_locked:
        return "interrupted"
    return record["state"]


def build_status_table(runs_folder: Path) -> Table:
    """A table of runs by stages, with the seconds of the finished ones and the verdict."""
    runs = list_runs(runs_folder)
    if not runs:
        raise UserError(
            "no runs there",
            where=runs_folder,
            remedy="make one with `tunery run configs/demo-legal.yaml`, or name another --runs",
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", *STAGES, "verdict"):
        table.add_column(column)
    for run in runs:
        manifest = run.read_manifest()
        is_locked = run.is_locked()
        cells = []
        for stage in STAGES:
            record = manifest.get(stage)
            state = stage_state(record, is_locked=is_locked)
            seconds = f" {record['seconds']:.0f} s" if record and state == "done" else ""
            cells.append(f"[{STYLES.get(state, 'dim')}]{state}[/]{seconds}")
        verdict = manifest.get("evaluate", {}).get("facts", {}).get("verdict", "-")
        table.add_row(run.path.name, *cells, str(verdict))
    return table


def summarize_facts(stage: StageName, facts: dict[str, Any]) -> str:
    """What a finished stage says of itself, in one line."""
    match stage:
        case "prepare":
            rows = ", ".join(f"{count:,} {side}" for side, count in facts["num_rows"].items())
            return f"{rows} rows of {facts['num_read']:,} read"
        case "train":
            return (
                f"loss {facts['first_loss']:.2f} -> {facts['last_loss']:.2f}, "
                f"validation {facts['validation_loss']:.2f}, "
                f"{facts['tokens_per_second']:.0f} tokens/s"
            )
        case "merge":
            formats = ", ".join(artefact["format"] for artefact in facts["artefacts"])
            return (
                f"{facts['num_merged_tensors']} tensors on the {facts['base']['kept']} base, "
                f"update kept to a cosine of at least {facts['worst_update_cosine']:.3f}; "
                f"{formats} checked"
            )
        case _:
            return f"{facts['num_samples']} questions: {facts['verdict']}"
