"""What simulation has shown of the verdict, for the method note of each report.

The figures are written by `python -m benchmarks.verdict` and travel with the package.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

METHOD_NOTE_FILE = Path(__file__).with_name("method_note.json")

COVERAGE_BAR = (0.94, 0.96)
FALSE_BETTER_BAR = 0.05
LEVEL_BAR = 0.05
POWER_BAR = 0.03
# What is beyond so many standard errors of the simulation is no accident of it.
NUM_ERRORS = 2.5


class Cell(TypedDict):
    """One simulated setting; shares are of its trials.

    kind: comparison, power, `non-inferiority, …` or `family, …`; correlation: within clusters;
    has_few_differing: under ten independent questions are expected to differ; planned_power: None
    where it was not planned; shares: coverage, better, worse, passed, claimed, as it has them.
    """

    kind: str
    population: str
    num_questions: int
    num_clusters: int
    correlation: float
    true_delta: float
    has_few_differing: bool
    planned_power: float | None
    num_trials: int
    shares: dict[str, float]


class MethodNote(TypedDict):
    """All shares of 1. Ordinary cells are those where at least ten independent questions differ.

    mean_coverage, coverage_range: of 95 % intervals over the ordinary cells; rare_coverage_range:
    over the others; false_better_max: share of evaluations of equal models called better;
    non_inferiority_max: of variants that lost the margin and passed; family_error_max: of three
    equal primary tasks, any claimed better or worse; power_deviation_max: simulated against
    planned; falls_short: cells that miss their bar by more than chance, in words.
    """

    date: str
    machine: str
    versions: dict[str, str]
    num_comparisons: int
    num_cells: int
    mean_coverage: float
    coverage_range: list[float]
    share_of_cells_covered: float
    rare_coverage_range: list[float]
    false_better_max: float
    false_better_mean: float
    non_inferiority_max: float
    family_error_max: float
    power_deviation_max: float
    falls_short: list[str]
    cells: list[Cell]


def load_method_note() -> MethodNote:
    """The committed figures."""
    note: MethodNote = json.loads(METHOD_NOTE_FILE.read_text())
    return note


def summarise(
    cells: Sequence[Cell], *, date: str, machine: str, versions: dict[str, str]
) -> MethodNote:
    """The note out of its cells; a cell of each kind has to be there."""
    intervals = [cell for cell in cells if "coverage" in cell["shares"]]
    ordinary = _shares([cell for cell in intervals if not cell["has_few_differing"]], "coverage")
    rare = _shares([cell for cell in intervals if cell["has_few_differing"]], "coverage")
    equal = _shares([cell for cell in intervals if cell["true_delta"] == 0], "better")
    low, high = COVERAGE_BAR
    return MethodNote(
        date=date,
        machine=machine,
        versions=versions,
        num_comparisons=sum(cell["num_trials"] for cell in cells),
        num_cells=len(cells),
        mean_coverage=round(sum(ordinary) / len(ordinary), 4),
        coverage_range=[min(ordinary), max(ordinary)],
        share_of_cells_covered=round(
            sum(low <= share <= high for share in ordinary) / len(ordinary), 4
        ),
        rare_coverage_range=[min(rare), max(rare)] if rare else [],
        false_better_max=max(equal),
        false_better_mean=round(sum(equal) / len(equal), 4),
        non_inferiority_max=max(_shares(cells, "passed")),
        family_error_max=max(_shares(cells, "claimed")),
        power_deviation_max=round(
            max(
                abs(cell["shares"]["better"] - cell["planned_power"])
                for cell in cells
                if cell["planned_power"] is not None
            ),
            4,
        ),
        falls_short=[line for cell in cells for line in _shortfalls(cell)],
        cells=list(cells),
    )


def _shares(cells: Sequence[Cell], name: str) -> list[float]:
    return [cell["shares"][name] for cell in cells if name in cell["shares"]]


def _shortfalls(cell: Cell) -> list[str]:
    """What misses its bar; intervals that cover too often are cautious, and told as such."""
    shares, where = cell["shares"], _describe(cell)
    short = []
    if "coverage" in shares:
        low, high = COVERAGE_BAR
        if _is_below(shares["coverage"], low, cell):
            short.append(f"{where}: covers {100 * shares['coverage']:.1f} %, too little")
        elif _is_below(1 - shares["coverage"], 1 - high, cell) and not cell["has_few_differing"]:
            short.append(f"{where}: covers {100 * shares['coverage']:.1f} %, cautious")
    if cell["true_delta"] == 0 and _is_below(FALSE_BETTER_BAR, shares.get("better", 0.0), cell):
        short.append(f"{where}: equal models called better in {100 * shares['better']:.1f} %")
    if _is_below(LEVEL_BAR, max(shares.get("passed", 0.0), shares.get("claimed", 0.0)), cell):
        short.append(f"{where}: false claims above {100 * LEVEL_BAR:.0f} %")
    planned = cell["planned_power"]
    if planned is not None and _is_below(POWER_BAR, abs(shares["better"] - planned), cell):
        short.append(
            f"{where}: power {100 * shares['better']:.1f} %, planned {100 * planned:.1f} %"
        )
    return short


def _is_below(value: float, bar: float, cell: Cell) -> bool:
    """Whether value < bar by more than the simulation's own error at the bar."""
    error = math.sqrt(max(bar * (1 - bar), 0.0) / cell["num_trials"])
    return value < bar - NUM_ERRORS * error


def _describe(cell: Cell) -> str:
    return (
        f"{cell['kind']}: {cell['population']}; {cell['num_questions']} questions, "
        f"{cell['num_clusters']} clusters, correlation {cell['correlation']:g}"
    )
