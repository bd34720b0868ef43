"""What `tunery status` shows: each run and how far it has come."""

from pathlib import Path

from rich.table import Table

from configs.errors import UserError
from configs.run_directory import STAGES, RunDirectory, StageRecord

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
