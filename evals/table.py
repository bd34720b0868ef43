"""The comparison as a table in the terminal, narrow enough for 80 columns."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # reading a finished table must not load inspect and scipy
    from evals.results import ComparisonResult, TaskResult

VERDICT_STYLES = {"better": "green", "worse": "red", "equivalent": "cyan", "inconclusive": "yellow"}


def print_comparison(file: Path, console: Console) -> None:
    """Print each task: every model and prompt with its score, the difference, the verdict."""
    result: ComparisonResult = json.loads(file.read_text())
    for task in result["tasks"]:
        console.print(f"\n[bold]{task['name']}[/]  [dim]{task['num_samples']} questions[/]")
        console.print(build_task_table(task))


def build_task_table(task: "TaskResult") -> Table:
    """Scores are shares of questions answered right; differences are in percentage points."""
    baseline, variant = task["baseline"], task["variant"]
    confidence = f"{100 * task['confidence']:.0f} %"
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for header, justify in (
        ("model", "left"),
        ("score", "right"),
        (f"{confidence} interval", "left"),
    ):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for prompt in baseline["prompts"]:
        mark = "  [dim]<- baseline[/]" if prompt["prompt"] == baseline["prompt"] else ""
        table.add_row(
            f"{baseline['name']}, {prompt['prompt']}",
            f"{prompt['score']:.3f}",
            _interval(prompt["interval"], 1) + mark,
        )
    table.add_row(
        f"{variant['name']}, {variant['prompt']}",
        f"{variant['score']:.3f}",
        _interval(variant["interval"], 1),
    )
    table.add_row(
        "difference in points", f"{100 * task['delta']:+.1f}", _interval(task["ci95"], 100)
    )
    style = VERDICT_STYLES[task["verdict"]]
    p_value = f"{task['p_value']:.2g}" if task["p_value"] >= 1e-4 else "< 0.0001"
    table.add_row("verdict", f"[bold {style}]{task['verdict']}[/]", f"p {p_value}")
    return table


def _interval(bounds: list[float], scale: float) -> str:
    low, high = (scale * bound for bound in bounds)
    return f"{low:.3f} to {high:.3f}" if scale == 1 else f"{low:+.1f} to {high:+.1f}"
