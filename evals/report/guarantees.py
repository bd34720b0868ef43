"""What simulation says of the method itself, in sentences: how often it is wrong."""

import json
from pathlib import Path
from typing import NamedTuple

from evals.report.words import percent
from evals.statistics.method_note import (
    COVERAGE_BAR,
    FALSE_BETTER_BAR,
    LEVEL_BAR,
    METHOD_NOTE_FILE,
    POWER_BAR,
    MethodNote,
)

MAX_SHORTFALLS = 5


class Guarantees(NamedTuple):
    """An introduction, then names with a sentence each."""

    introduction: str
    lines: list[tuple[str, str]]


def load_guarantees(file: Path = METHOD_NOTE_FILE) -> Guarantees | None:
    """The committed figures in words; None where they have not been computed."""
    return describe(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def describe(note: MethodNote) -> Guarantees:
    """Each figure beside the bar that was set for it."""
    low, high = note["coverage_range"]
    covered = (
        f"in {percent(note['mean_coverage'])} % of comparisons on average, {percent(low)} to "
        f"{percent(high)} % by setting (wanted: {_whole(COVERAGE_BAR[0])} to "
        f"{_whole(COVERAGE_BAR[1])} %)"
    )
    if note["rare_coverage_range"]:
        low, high = note["rare_coverage_range"]
        covered += f"; {percent(low)} to {percent(high)} % where hardly any answers differ"
    lines = [
        (
            "Equal models called better",
            f"in {percent(note['false_better_mean'])} % of comparisons on average, at most "
            f"{percent(note['false_better_max'])} % in any setting (wanted: at most "
            f"{_whole(FALSE_BETTER_BAR)} %).",
        ),
        ("A 95 % interval holds the truth", f"{covered}."),
        (
            "Three equal main tasks, any called better or worse",
            f"at most {percent(note['family_error_max'])} % (wanted: at most "
            f"{_whole(LEVEL_BAR)} %).",
        ),
        (
            "A loss of the whole margin overlooked",
            f"at most {percent(note['non_inferiority_max'])} % (wanted: at most "
            f"{_whole(LEVEL_BAR)} %).",
        ),
        (
            "A difference found as often as planned",
            f"off by {percent(note['power_deviation_max'])} points at most (wanted: "
            f"{_whole(POWER_BAR)}).",
        ),
        ("Settings that miss what is wanted by more than chance", _shortfalls(note)),
    ]
    return Guarantees(
        f"{note['num_comparisons']:,} comparisons whose truth is known were simulated in "
        f"{note['num_cells']} settings ({note['date']}) and judged by the program that has judged "
        "here.",
        lines,
    )


def _shortfalls(note: MethodNote) -> str:
    short = note["falls_short"]
    if not short:
        return "none."
    more = len(short) - MAX_SHORTFALLS
    told = "; ".join(short[:MAX_SHORTFALLS])
    return f"{len(short)}: {told}; and {more} more." if more > 0 else f"{len(short)}: {told}."


def _whole(share: float) -> str:
    return f"{100 * share:g}"
