"""The report for the people who decide, as one HTML file: verdict first, then the evidence."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template
from markupsafe import Markup

from configs.schema import RunConfig
from data.html import load_page
from evals.cost import format_money
from evals.evidence import TaskEvidence
from evals.log_bundle import LogBundle
from evals.metrics.registry import METRICS
from evals.preflight import Check
from evals.report import words
from evals.report.figures import build_forest
from evals.report.guarantees import load_guarantees
from evals.report.method import asking, metrics_used, rules
from evals.report.notes import side_notes, vote_notes
from evals.report.repeat import configuration, details_of_run
from evals.report.samples import OUTCOMES, SampleGroup, build_sample, group_samples
from evals.results import ComparisonResult, TaskResult

TEMPLATES = Path(__file__).parent / "templates"
# With the rest of the page, samples stay below 3 MB.
MAX_SAMPLE_BYTES = 2_400_000
MAX_SAMPLES_PER_GROUP = 60
# Controls, half characters that cannot be written, and marks that turn the direction of the text
# around them, by which an answer could make "30" read "03" or reverse the words beside it.
UNPRINTABLE = dict.fromkeys(
    (
        *range(9),
        *range(11, 32),
        127,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),
    ),
    "\N{REPLACEMENT CHARACTER}",
)


class ShownGroup(NamedTuple):
    """A task's questions with one outcome; shown: the rendered ones out of all `num_samples`."""

    task: str
    outcome: str
    title: str
    num_samples: int
    shown: list[Markup]


class ShownTask(NamedTuple):
    """The samples of a task; number: its place, from 1, by which the filter names it."""

    number: int
    result: TaskResult
    groups: list[ShownGroup]


def render_report(
    result: ComparisonResult,
    *,
    config: RunConfig,
    evidence: Sequence[TaskEvidence],
    checks: Sequence[Check],
    commands: Sequence[str],
    details: Mapping[str, str] | None = None,
    log_bundle: LogBundle | None = None,
) -> str:
    """The report as one HTML file that loads nothing; every text of data and models is escaped.

    evidence: of `result["tasks"]`, in their order; details: what else it takes to repeat it, by
    name (hosts, dates, hash of the artefact); log_bundle: linked from the page, beside which it
    lies. What is not printable comes out as U+FFFD, so the text can always be written as UTF-8.
    """
    script = Markup(_source("filter.js"))
    html = _template("page.html.jinja").render(
        result=result,
        config=config,
        tasks=words.of_role(result, "primary", "exploratory"),
        primary=words.of_role(result, "primary"),
        guards=words.of_role(result, "guard"),
        forest=build_forest(result),
        samples=_samples(result, evidence),
        outcomes=OUTCOMES,
        checks=checks,
        metrics=metrics_used(result),
        asking=asking(result, evidence),
        rules=rules(result, config.evaluation),
        guarantees=load_guarantees(),
        commands=commands,
        details=details_of_run(result, config, evidence, details or {}),
        configuration=configuration(config),
        log_bundle=log_bundle,
        style=Markup(_source("style.css")),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return printable(html)


def printable(text: str) -> str:
    """The text as UTF-8 can hold it, with U+FFFD for what acts instead of being read."""
    return text.translate(UNPRINTABLE)


def _samples(result: ComparisonResult, evidence: Sequence[TaskEvidence]) -> list[ShownTask]:
    groups = [
        group
        for task, one in zip(result["tasks"], evidence, strict=True)
        for group in group_samples(one, task)
    ]
    shown = _render_in_turn(groups, result)
    return [
        ShownTask(
            number,
            task,
            [
                ShownGroup(group.task, group.outcome, group.title, len(group.pairs), rendered)
                for group, rendered in zip(groups, shown, strict=True)
                if group.task == task["name"]
            ],
        )
        for number, task in enumerate(result["tasks"], start=1)
    ]


def _render_in_turn(groups: Sequence[SampleGroup], result: ComparisonResult) -> list[list[Markup]]:
    """One sample of each group after the other, until the page holds what it can."""
    template = _template("sample.html.jinja")
    results = {task["name"]: task for task in result["tasks"]}
    rendered: list[list[Markup]] = [[] for _ in groups]
    num_bytes = 0
    for turn in range(MAX_SAMPLES_PER_GROUP):
        for group, shown in zip(groups, rendered, strict=True):
            if turn >= len(group.pairs):
                continue
            sample = build_sample(group.pairs[turn])
            html = Markup(template.render(sample=sample, task=results[group.task]))
            num_bytes += len(html.encode("utf-8", "replace"))
            if num_bytes > MAX_SAMPLE_BYTES:
                return rendered
            shown.append(html)
    return rendered


@cache
def _template(name: str) -> Template:
    filters: dict[str, Any] = {
        "points": words.points,
        "percent": words.percent,
        "short_percent": words.short_percent,
        "p_value": words.p_value,
        "seconds": words.seconds,
        "count": words.count,
        "interval": words.interval,
        "signed": words.signed,
        "money": format_money,
        "megabytes": lambda num_bytes: f"{num_bytes / 1e6:,.0f} MB",
    }
    template = load_page(TEMPLATES / name, filters)
    template.globals.update(
        words=words, METRICS=METRICS, side_notes=side_notes, vote_notes=vote_notes
    )
    return template


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
