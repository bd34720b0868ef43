"""The report for the people who decide: verdict first, then the evidence, in one HTML file."""

import importlib.metadata
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from configs.schema import RunConfig
from data.html import load_page
from evals.asking import Answer
from evals.figures import draw_difference, draw_scores, signed
from evals.results import ZERO_SHOT, Evidence, PromptResult, TaskResult

TEMPLATE = Path(__file__).parent / "report.html.jinja"
MAX_DECIDED_SHOWN = 10
MAX_BOTH_WRONG_SHOWN = 5
VERSIONS = ("inspect-ai", "openai", "scipy", "statsmodels")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the scores' table; seconds: the median of one answer, None where unknown."""

    model: str
    is_variant: bool
    is_judged: bool
    result: PromptResult
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both answers to one question; the question is the one without worked examples."""

    baseline: Answer
    variant: Answer


@dataclass(frozen=True, kw_only=True)
class Group:
    """Questions with the same outcome: all of them counted, the first ones shown."""

    title: str
    num_pairs: int
    shown: Sequence[Pair]


def render_report(task: TaskResult, *, config: RunConfig, evidence: Evidence) -> str:
    """The report as one HTML file without outside parts; all texts of models are escaped."""
    rows = _table_rows(task, evidence)
    pairs = [
        Pair(baseline=theirs, variant=ours)
        for theirs, ours in zip(
            evidence.baseline[task["baseline"]["prompt"]], evidence.variant, strict=True
        )
    ]
    labelled = [
        (f"{row.model}, {row.result['prompt']}", row.result, row.is_variant) for row in rows
    ]
    filters = {
        "points": _points,
        "percent": _percent,
        "p_value": format_p_value,
        "tokens": _tokens,
    }
    return load_page(TEMPLATE, filters).render(
        task=task,
        config=config,
        headline=headline(task),
        summary=summary(task),
        rows=rows,
        outcomes=_count_outcomes(pairs),
        groups=_group(pairs),
        example_prompt=evidence.variant[0].question,
        examples=evidence.examples,
        # figures.py writes the SVG and escapes no model's text into it but the two names.
        scores_figure=Markup(draw_scores(labelled)),
        difference_figure=Markup(draw_difference(task)),
        date=datetime.now(UTC).date().isoformat(),
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )


def headline(task: TaskResult) -> str:
    """The verdict in one line, for instance "Better: +67.0 points"."""
    return f"{task['verdict'].capitalize()}: {_points(task['delta'])} points"


def summary(task: TaskResult) -> str:
    """The verdict's evidence in one sentence, in words that need no statistics."""
    variant, baseline, size = task["variant"], task["baseline"], task["num_samples"]
    shown = "" if baseline["prompt"] == ZERO_SHOT else f", shown {baseline['prompt']},"
    counts = (
        f"{variant['name']} answered {variant['num_correct']} of {size} unseen questions exactly "
        f"right; {baseline['name']}{shown} {baseline['num_correct']}."
    )
    margin, least = (
        _percent(task["equivalence_margin"]),
        _percent(task["minimum_detectable_effect"]),
    )
    meaning = {
        "better": "So large a difference is not explained by the choice of questions.",
        "worse": "So large a difference is not explained by the choice of questions.",
        "equivalent": f"The difference is small with confidence: less than {margin} points.",
        "inconclusive": f"These questions do not settle it: {size} of them find a difference "
        f"reliably only from about {least} points on.",
    }
    return f"{counts} {meaning[task['verdict']]}"


def format_p_value(p_value: float) -> str:
    """A p-value with its sign of relation, three digits at most."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _points(share: float) -> str:
    return signed(100 * share)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _tokens(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _table_rows(task: TaskResult, evidence: Evidence) -> list[Row]:
    baseline, variant = task["baseline"], task["variant"]
    rows = [
        Row(
            model=baseline["name"],
            is_variant=False,
            is_judged=result["prompt"] == baseline["prompt"],
            result=result,
            seconds=_median_seconds(evidence.baseline[result["prompt"]]),
        )
        for result in baseline["prompts"]
    ]
    own = Row(
        model=variant["name"],
        is_variant=True,
        is_judged=True,
        result=variant,
        seconds=_median_seconds(evidence.variant),
    )
    return [*rows, own]


def _median_seconds(answers: Sequence[Answer]) -> float | None:
    known = [answer.seconds for answer in answers if answer.seconds is not None]
    return statistics.median(known) if known else None


def _count_outcomes(pairs: Sequence[Pair]) -> dict[str, int]:
    """Questions by who was right: only_variant, only_baseline, both, neither."""
    names = {
        (False, True): "only_variant",
        (True, False): "only_baseline",
        (True, True): "both",
        (False, False): "neither",
    }
    counts = dict.fromkeys(names.values(), 0)
    for pair in pairs:
        counts[names[pair.baseline.correct, pair.variant.correct]] += 1
    return counts


def _group(pairs: Sequence[Pair]) -> list[Group]:
    def select(title: str, *, baseline: bool, variant: bool, most: int) -> Group:
        chosen = [
            pair
            for pair in pairs
            if (pair.baseline.correct, pair.variant.correct) == (baseline, variant)
        ]
        return Group(title=title, num_pairs=len(chosen), shown=chosen[:most])

    return [
        select("Won by the variant", baseline=False, variant=True, most=MAX_DECIDED_SHOWN),
        select("Lost by the variant", baseline=True, variant=False, most=MAX_DECIDED_SHOWN),
        select("Wrong on both sides", baseline=False, variant=False, most=MAX_BOTH_WRONG_SHOWN),
    ]
