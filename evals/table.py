"""The comparison as tables in the terminal, narrow enough for 80 columns."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # reading a finished table must not load inspect and scipy
    from evals.results import ComparisonResult, TaskResult, VoteResult

VERDICT_STYLES = {"better": "green", "worse": "red", "equivalent": "cyan", "inconclusive": "yellow"}
ROLE_TITLES = {
    "primary": "further primary tasks",
    "exploratory": "exploratory tasks",
    "guard": "outside the domain, against the untuned base",
}

Justify = Literal["left", "right"]


def print_comparison(file: Path, console: Console) -> "ComparisonResult":
    """Print a finished `comparison.json`, and return what stands in it."""
    result: ComparisonResult = json.loads(file.read_text(encoding="utf-8"))
    print_result(result, console)
    return result


def print_result(result: "ComparisonResult", console: Console) -> None:
    """The own test rows in full, every other task in a line, then what was decided and why."""
    own, *others = result["tasks"]
    confidence = result["confidence"]
    console.print(f"\n[bold]{escape(own['name'])}[/]  [dim]{own['num_samples']} questions[/]")
    console.print(build_task_table(own, confidence=confidence))
    for role, title in ROLE_TITLES.items():
        of_role = [task for task in others if task["role"] == role]
        if of_role:
            console.print(f"\n[bold]{title}[/]")
            console.print(build_lines_table(of_role, confidence=confidence))
    if votes := result.get("votes"):
        console.print("\n[bold]blind votes[/]")
        console.print(build_votes_table(votes, confidence=confidence))
        for told in dict.fromkeys(warning for one in votes for warning in one["warnings"]):
            console.print(f"[yellow]{escape(told)}[/]", soft_wrap=True)
    for one in result["not_asked"]:
        told = escape(f"not asked: {one['name']}: {one['why']}")
        console.print(f"[dim]{told}[/]", soft_wrap=True)
    style = VERDICT_STYLES[result["verdict"]]
    decision = "[bold green]promote[/]" if result["promote"] else "[bold red]do not promote[/]"
    console.print(f"\nverdict  [bold {style}]{result['verdict']}[/]: {decision}")
    for reason in result["reasons"]:
        console.print(f"  [dim]{escape(reason)}[/]", soft_wrap=True)


def build_task_table(task: "TaskResult", *, confidence: float) -> Table:
    """Every model and prompt with its score as a share of 1, and the difference in points."""
    baseline, variant = task["baseline"], task["variant"]
    table = _new_table(
        ("model", "left"), ("score", "right"), (f"{100 * confidence:.0f} % interval", "left")
    )
    for prompt in baseline["prompts"]:
        mark = "  [dim]<- baseline[/]" if prompt["prompt"] == baseline["prompt"] else ""
        table.add_row(
            escape(f"{baseline['name']}, {prompt['prompt']}"),
            f"{prompt['score']:.3f}",
            _interval(prompt["interval"], 1) + mark,
        )
    table.add_row(
        escape(f"{variant['name']}, {variant['prompt']}"),
        f"{variant['score']:.3f}",
        _interval(variant["interval"], 1),
    )
    table.add_row(
        "difference in points", f"{100 * task['delta']:+.1f}", _interval(task["interval"], 100)
    )
    p_value = task["adjusted_p_value"]
    told = f"{p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"
    table.add_row("verdict", _verdict(task), f"p {told}")
    return table


def build_lines_table(tasks: "list[TaskResult]", *, confidence: float) -> Table:
    """A line a task: both scores as shares of 1, the difference in points, the verdict."""
    table = _new_table(
        ("task", "left"),
        ("n", "right"),
        (escape(tasks[0]["baseline"]["name"][:12]), "right"),
        ("variant", "right"),
        ("diff", "right"),
        (f"{100 * confidence:.0f} % interval", "left"),
        ("verdict", "left"),
    )
    for task in tasks:
        table.add_row(
            escape(task["name"]),
            str(task["num_samples"]),
            f"{task['baseline']['score']:.3f}",
            f"{task['variant']['score']:.3f}",
            f"{100 * task['delta']:+.1f}",
            _interval(task["interval"], 100),
            _verdict(task),
        )
    return table


def build_votes_table(votes: "list[VoteResult]", *, confidence: float) -> Table:
    """A line a pair of models: votes for the first as a share of 1, and how many of what kind."""
    table = _new_table(
        ("models", "left"),
        ("won", "right"),
        ("lost", "right"),
        ("even", "right"),
        ("share", "right"),
        (f"{100 * confidence:.0f} % interval", "left"),
        ("verdict", "left"),
    )
    for one in votes:
        bounds = one["interval"]
        style = VERDICT_STYLES[one["verdict"]]
        table.add_row(
            escape(f"{one['model']} against {one['other']}"),
            str(one["num_won"]),
            str(one["num_lost"]),
            str(one["num_tied"] + one["num_both_bad"]),
            f"{one['share']:.3f}",
            "" if bounds is None else _interval(bounds, 1),
            f"[bold {style}]{one['verdict']}[/]",
        )
    return table


def _new_table(*columns: tuple[str, Justify]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for header, justify in columns:
        table.add_column(header, justify=justify)
    return table


def _verdict(task: "TaskResult") -> str:
    return f"[bold {VERDICT_STYLES[task['verdict']]}]{task['verdict']}[/]"


def _interval(bounds: list[float], scale: float) -> str:
    low, high = (scale * bound for bound in bounds)
    return f"{low:.3f} to {high:.3f}" if scale == 1 else f"{low:+.1f} to {high:+.1f}"
