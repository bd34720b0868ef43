"""The comparison as a table in the terminal."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evals.results import ComparisonResult

VERDICT_STYLES = {
    "better": "bold green",
    "worse": "bold red",
    "equivalent": "bold",
    "inconclusive": "bold yellow",
}


def print_comparison(file: Path, console: Console) -> None:
    """Print each task: both sides' scores, the paired difference with its interval, the verdict."""
    result: ComparisonResult = json.loads(file.read_text())
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("task", "model", "prompt", "score", "difference", "interval", "verdict"):
        table.add_column(column, justify="right" if column in ("score", "difference") else "left")
    for task in result["tasks"]:
        baseline, variant = task["baseline"], task["variant"]
        for prompt in baseline["prompts"]:
            is_judged = prompt["prompt"] == baseline["prompt"]
            table.add_row(
                task["name"] if prompt is baseline["prompts"][0] else "",
                baseline["name"],
                prompt["prompt"] + (" (baseline)" if is_judged else ""),
                f"{prompt['score']:.3f}",
            )
        low, high = (100 * bound for bound in task["ci95"])
        style = VERDICT_STYLES[task["verdict"]]
        table.add_row(
            "",
            variant["name"],
            variant["prompt"],
            f"{variant['score']:.3f}",
            f"{100 * task['delta']:+.1f} points",
            f"{100 * task['confidence']:.0f} %: {low:+.1f} to {high:+.1f}",
            f"[{style}]{task['verdict']}[/]",
        )
    console.print()
    console.print(table)
    console.print(
        f"[dim]{result['tasks'][0]['num_samples']} questions, the same for all; "
        f"exact McNemar p = {result['tasks'][0]['p_value']:.2g}[/]"
    )
