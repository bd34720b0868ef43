"""Is the verdict honest? Simulated evaluations, judged by the code that judges real ones.

    python -m benchmarks.verdict [--trials 1500] [--no-write]

Each cell draws evaluations from a population whose true difference is known and counts: how often
the interval covers it, how often equal models are told apart as "better", how often a difference is
found where the plan says so, how often a variant passes as non-inferior that has lost the margin,
and how often any of three primary tasks is claimed falsely. Reports quote the result from
evals/statistics/method_note.json; for readers it is written to benchmarks/results/verdict.md.
"""

import argparse
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import verdict_populations as draws
from benchmarks.machine import describe_machine, name_machine
from benchmarks.verdict_populations import LabelPopulation, Layout, Population, clustered, single
from evals.statistics.comparison import PairedComparison
from evals.statistics.corpus import compare_macro_f1
from evals.statistics.method_note import METHOD_NOTE_FILE, Cell, MethodNote, summarise
from evals.statistics.multiple import holm
from evals.statistics.non_inferiority import judge_non_inferiority, pool_comparisons
from evals.statistics.paired import compare_paired
from evals.statistics.power import mcnemar_power, mean_power
from evals.statistics.verdict import decide

MARKDOWN_FILE = Path(__file__).parent / "results" / "verdict.md"
CONFIDENCE, MARGIN, LOST = 0.95, 0.03, 0.05
NUM_RESAMPLES = 1000
# Fewer independent differing questions than this make discrete, cautious intervals.
FEW_DIFFERING = 10
RULE: dict[str, Any] = {
    "confidence": CONFIDENCE,
    "num_resamples": NUM_RESAMPLES,
    "margin": MARGIN,
}


class Setting(NamedTuple):
    """A cell: which questions, how they hang together, in how many epochs, and the plan's power."""

    population: Population | LabelPopulation
    layout: Layout
    planned_power: float | None = None


def main() -> None:
    """Run all cells; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1500, help="evaluations simulated per cell")
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args()
    machine = describe_machine(["numpy", "scipy", "statsmodels"])
    started, cells = time.perf_counter(), []
    for cell in run_cells(arguments.trials):
        cells.append(cell)
        print(format_cell(cell), flush=True)
    note = summarise(
        cells,
        date=datetime.date.today().isoformat(),
        machine=name_machine(machine),
        versions=machine["versions"],
    )
    if not arguments.no_write:
        METHOD_NOTE_FILE.write_text(json.dumps(note, indent=1) + "\n")
        MARKDOWN_FILE.parent.mkdir(exist_ok=True)
        MARKDOWN_FILE.write_text(render_markdown(note))
    summary = {key: value for key, value in note.items() if key != "cells"}
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"benchmark": "verdict", "seconds": seconds, **summary}))


def run_cells(num_trials: int) -> Iterator[Cell]:
    """Every cell, with its seed by its place, so that one changed cell leaves the others."""
    for number, setting in enumerate(settings()):
        yield simulate(setting, num_trials=num_trials, seed=number)
    for number, (name, tasks) in enumerate(lost_margins()):
        yield simulate_non_inferiority(name, tasks, num_trials=num_trials, seed=10_000 + number)
    for number, (name, tasks) in enumerate(families()):
        yield simulate_family(name, tasks, num_trials=num_trials, seed=20_000 + number)


def settings() -> Iterator[Setting]:
    """Cells of single comparisons: coverage, false claims, power."""
    outcomes = [(0.005, 0.005), (0.025, 0.025), (0.1, 0.1), (0.25, 0.25)]
    shifted = [(0.02, 0.0), (0.08, 0.02), (0.35, 0.15)]
    for num in (30, 100, 300, 2000):
        for won, lost in outcomes + shifted:
            score = 0.95 if won + lost <= 0.1 else 0.5
            yield Setting(draws.binary(won, lost, score=score), single(num))
        for population in (draws.token_f1(0.0), draws.token_f1(1.0), draws.judged(0.0)):
            yield Setting(population, single(num))
        yield Setting(draws.rare_graded(0.02, 0.02), single(num))
        yield Setting(draws.lopsided(), single(num))
    for num, largest in ((30, 3), (100, 5), (300, 20), (2000, 20)):
        for correlation in (0.0, 0.2, 0.6):
            layout = clustered(num, largest, correlation)
            for won, lost in outcomes + shifted:
                yield Setting(draws.binary(won, lost), layout)
            for graded in (draws.token_f1(0.0), draws.token_f1(1.0), draws.judged(0.0)):
                yield Setting(graded, layout)
            yield Setting(draws.rare_graded(0.02, 0.02), layout)
            yield Setting(draws.lopsided(), layout)
    for rates in ((0.7, 0.7), (0.6, 0.75)):
        for num_labels, num in ((3, 100), (3, 500), (12, 200), (12, 1000)):
            for layout in (single(num), clustered(num, 10, 0.3)):
                yield Setting(draws.labels(num_labels, rates=rates, skew=1.0), layout)
    yield from power_settings()


def power_settings() -> Iterator[Setting]:
    """Cells with a difference of which the plan says how often it is found."""
    for num, won, lost in (
        (100, 0.22, 0.07),
        (200, 0.15, 0.06),
        (500, 0.1, 0.055),
        (2000, 0.04, 0.024),
    ):
        planned = mcnemar_power(num, share_won=won, share_lost=lost, confidence=CONFIDENCE)
        yield Setting(draws.binary(won, lost), single(num), planned)
    for num, largest, correlation, population in (
        (200, 5, 0.3, draws.binary(0.2, 0.07)),
        (600, 20, 0.2, draws.binary(0.22, 0.1)),
        (2000, 20, 0.4, draws.binary(0.15, 0.08)),
        (400, 10, 0.3, draws.token_f1(1.0)),
        (300, 10, 0.2, draws.judged(0.04)),
        (100, 1, 0.0, draws.judged(0.04)),
        (400, 1, 0.0, draws.token_f1(0.7)),
    ):
        layout = clustered(num, largest, correlation)
        error = (layout.design_effect * population.variance / num) ** 0.5
        planned = mean_power(
            delta=population.delta,
            standard_error=error,
            degrees_of_freedom=layout.degrees_of_freedom,
            confidence=CONFIDENCE,
        )
        yield Setting(population, layout, planned)


def lost_margins() -> Iterator[tuple[str, list[Setting]]]:
    """Variants that have lost exactly the margin, on one task or on the mean of several."""
    populations = [draws.binary(0.0, LOST, score=0.9), draws.binary(0.05, 0.05 + LOST)]
    for num in (40, 100, 240, 500):
        for population in populations:
            yield "one task", [Setting(population, single(num))]
    for population in populations:
        yield "six guard tasks", [Setting(population, single(40))] * 6
        yield "one clustered task", [Setting(population, clustered(300, 5, 0.3))]
        yield "six clustered guard tasks", [Setting(population, clustered(80, 4, 0.3))] * 6
    mixed = [draws.binary(0.0, 0.1), draws.binary(0.1, 0.1), draws.binary(0.02, 0.07)]
    yield "six unlike guard tasks", [Setting(one, single(40)) for one in mixed] * 2


def families() -> Iterator[tuple[str, list[Setting]]]:
    """Three primary tasks without any difference."""
    for num in (50, 200, 1000):
        alike = [Setting(draws.binary(share, share), single(num)) for share in (0.05, 0.1, 0.25)]
        yield "three tasks", alike
        layout = clustered(num, 5, 0.3)
        yield (
            "three clustered tasks",
            [
                Setting(draws.binary(0.1, 0.1), layout),
                Setting(draws.token_f1(0.0), layout),
                Setting(draws.judged(0.0), layout),
            ],
        )


def compare(setting: Setting, rng: np.random.Generator, seed: int) -> PairedComparison:
    """One simulated evaluation through the code of real ones."""
    population, layout = setting.population, setting.layout
    if isinstance(population, LabelPopulation):
        rows = draws.draw(Population(*population[:3]), layout, rng)
        sides = [draws.count(rows, column, population.num_labels) for column in (1, 2)]
        return compare_macro_f1(*sides, clusters=layout.labels, seed=seed, **RULE)
    rows = draws.draw(population, layout, rng)
    return compare_paired(rows[:, 0], rows[:, 1], clusters=layout.labels, seed=seed, **RULE)


def simulate(setting: Setting, *, num_trials: int, seed: int) -> Cell:
    """Coverage, and shares of verdicts, of one cell."""
    rng, truth = np.random.default_rng(seed), setting.population.delta
    covered = better = worse = 0
    for trial in range(num_trials):
        result = compare(setting, rng, trial)
        low, high = result.interval
        # Bounds at ±1 or at 0 differences may touch the truth in their last bit.
        covered += low - 1e-9 <= truth <= high + 1e-9
        better += result.verdict == "better"
        worse += result.verdict == "worse"
    return cell_of(
        "comparison" if setting.planned_power is None else "power",
        [setting],
        num_trials,
        coverage=covered / num_trials,
        better=better / num_trials,
        worse=worse / num_trials,
    )


def simulate_non_inferiority(
    name: str, tasks: list[Setting], *, num_trials: int, seed: int
) -> Cell:
    """How often a variant passes that has truly lost the margin."""
    rng, passed = np.random.default_rng(seed), 0
    for trial in range(num_trials):
        estimate = pool_comparisons([compare(task, rng, trial) for task in tasks])
        passed += judge_non_inferiority(estimate, margin=LOST, confidence=CONFIDENCE).passed
    return cell_of(f"non-inferiority, {name}", tasks, num_trials, passed=passed / num_trials)


def simulate_family(name: str, tasks: list[Setting], *, num_trials: int, seed: int) -> Cell:
    """How often any of several equal tasks is called better or worse, p-values by Holm."""
    rng, claimed, better = np.random.default_rng(seed), 0, 0
    for trial in range(num_trials):
        results = [compare(task, rng, trial) for task in tasks]
        verdicts = [
            decide(result.interval, p_value, confidence=CONFIDENCE, margin=MARGIN)
            for result, p_value in zip(
                results, holm([result.p_value for result in results]), strict=True
            )
        ]
        better += "better" in verdicts
        claimed += "better" in verdicts or "worse" in verdicts
    return cell_of(
        f"family, {name}",
        tasks,
        num_trials,
        better=better / num_trials,
        claimed=claimed / num_trials,
    )


def cell_of(kind: str, tasks: list[Setting], num_trials: int, **shares: float) -> Cell:
    """The record of a cell."""
    layout = tasks[0].layout
    differing = sum(
        task.population.share_differing * task.layout.num / task.layout.design_effect
        if isinstance(task.population, Population)
        else task.layout.num
        for task in tasks
    )
    return Cell(
        kind=kind,
        population=" + ".join(dict.fromkeys(task.population.name for task in tasks)),
        num_questions=layout.num,
        num_clusters=len(layout.sizes),
        correlation=layout.correlation,
        true_delta=round(sum(task.population.delta for task in tasks) / len(tasks), 6),
        has_few_differing=differing < FEW_DIFFERING,
        planned_power=tasks[0].planned_power,
        num_trials=num_trials,
        shares={name: round(share, 5) for name, share in shares.items()},
    )


def format_cell(cell: Cell) -> str:
    """A line of the table."""
    shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in cell["shares"].items())
    planned = cell["planned_power"]
    return (
        f"{cell['kind']}: {cell['population']}; {cell['num_questions']} questions in "
        f"{cell['num_clusters']} clusters (correlation {cell['correlation']:g}), true "
        f"{100 * cell['true_delta']:+.2f} points: {shares}"
        + ("" if planned is None else f", planned {100 * planned:.2f} %")
        + (" [few differing]" if cell["has_few_differing"] else "")
    )


def render_markdown(note: MethodNote) -> str:
    """The committed result, cell by cell."""
    lines = ["# Simulated guarantees of the verdict", "", "`python -m benchmarks.verdict`", ""]
    facts = {key: value for key, value in note.items() if key not in ("cells", "falls_short")}
    lines += [f"- {key.replace('_', ' ')}: {json.dumps(value)}" for key, value in facts.items()]
    lines += ["", "Cells that miss a bar, beyond what chance explains:", ""]
    lines += [f"- {line}" for line in note["falls_short"]] or ["- none"]
    lines += ["", "All cells:", ""]
    lines += [f"- {format_cell(cell)}" for cell in note["cells"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
