"""The report as Markdown, for pull requests and terminals: the page without its samples."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from configs.schema import RunConfig
from evals.cost import format_money
from evals.evidence import TaskEvidence
from evals.metrics.registry import METRICS
from evals.preflight import Check
from evals.report import words
from evals.report.guarantees import load_guarantees
from evals.report.notes import side_notes, vote_notes
from evals.report.page import printable
from evals.report.repeat import details_of_run
from evals.results import ComparisonResult, SideCost, TaskResult, VoteResult

# Everything that Markdown or the HTML within it could take for markup.
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&@])")


def render_markdown(
    result: ComparisonResult,
    *,
    config: RunConfig,
    checks: Sequence[Check],
    commands: Sequence[str],
    evidence: Sequence[TaskEvidence] = (),
    details: Mapping[str, str] | None = None,
) -> str:
    """The report in GitHub's Markdown; arguments as those of `evals.report.page.render_report`.

    evidence: only for the prompts' hash, which is left out without it. Texts are escaped, so that
    no name or model's word acts as markup, link or mention.
    """
    parts = [
        _verdict(result, config),
        _tasks("Task by task", words.of_role(result, "primary", "exploratory"), result),
        _votes(result),
        _guard(result),
        _not_asked(result),
        _cost(result),
        _checks(checks),
        _guarantees(),
        _repeat(commands, details_of_run(result, config, evidence, details or {})),
    ]
    return printable("\n\n".join("\n".join(part) for part in parts if part) + "\n")


def escape(text: str) -> str:
    """The text as one line that stands in Markdown as it is."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def _verdict(result: ComparisonResult, config: RunConfig) -> list[str]:
    summaries = [f"- **{escape(name)}**: {escape(told)}" for name, told in words.summaries(result)]
    return [
        f"# {escape(config.name)}: {escape(words.headline(result))}",
        "",
        f"**{escape(words.recommendation(result))}**",
        "",
        *summaries,
        "",
        "Why:",
        "",
        *(
            f"{number}. {escape(reason)}"
            for number, reason in enumerate(result["reasons"], start=1)
        ),
    ]


def _tasks(title: str, tasks: Sequence[TaskResult], result: ComparisonResult) -> list[str]:
    confidence = words.short_percent(result["confidence"])
    lines = [
        f"## {title}",
        "",
        *_table(
            ["Task", "Baseline", "Variant", "Difference", "p, adjusted", "Found from", "Verdict"],
            (row for task in tasks for row in _task_rows(task)),
        ),
        "",
        f"Scores in percent, differences in points, each with its {confidence} % interval. Found "
        "from: the smallest true difference that so many questions find reliably.",
    ]
    notes = [
        f"- {escape(task['name'])}: {'**Warning:** ' if is_warning else ''}{escape(note)}"
        for task in tasks
        for is_warning, note in side_notes(task)
    ]
    return [*lines, "", *notes] if notes else lines


def _task_rows(task: TaskResult) -> Iterator[list[str]]:
    title = METRICS[task["metric"]].title
    told = "; not decisive" if task["role"] == "exploratory" else ""
    yield [
        f"**{escape(task['name'])}** ({title}; {words.questions(task)}{told})",
        words.score(task["baseline"]),
        words.score(task["variant"]),
        f"**{words.points(task['delta'])}** ({words.interval(task['interval'])})",
        escape(words.p_value(task["adjusted_p_value"])),
        words.percent(task["minimum_detectable_effect"]),
        task["verdict"],
    ]
    clean = task["clean"]
    if clean is not None:
        yield [
            f"… without {words.counted(task['num_known'], 'question')} that the rows to train on "
            f"give away ({clean['num_samples']:,} left)",
            words.percent(clean["baseline_score"]),
            words.percent(clean["variant_score"]),
            f"**{words.points(clean['delta'])}** ({words.interval(clean['interval'])})",
            "",
            "",
            "",
        ]


def _votes(result: ComparisonResult) -> list[str]:
    votes = result.get("votes", [])
    if not votes:
        return []
    confidence = words.short_percent(result["confidence"])
    header = ["Models", "Votes", "Won", "Lost", "Equal", "Both bad", "Share"]
    return [
        "## What people preferred",
        "",
        "Two answers to the same prompt, without names and in an order left to chance. The verdict "
        "does not rest on these votes.",
        "",
        *_table([*header, "p, adjusted", "Preferred"], map(_vote_row, votes)),
        "",
        f"Share in percent, with its {confidence} % interval; equal and both bad count half.",
        "",
        *(
            f"- {escape(one['model'])} against {escape(one['other'])}: "
            f"{'**Warning:** ' if is_warning else ''}{escape(note)}"
            for one in votes
            for is_warning, note in vote_notes(one)
        ),
    ]


def _vote_row(one: VoteResult) -> list[str]:
    p_value = one["adjusted_p_value"]
    return [
        f"**{escape(one['model'])}** against {escape(one['other'])}",
        *(words.count(one[name]) for name in ("num_votes", "num_won", "num_lost")),
        *(words.count(one[name]) for name in ("num_tied", "num_both_bad")),
        words.vote_share(one),
        words.UNKNOWN if p_value is None else escape(words.p_value(p_value)),
        escape(words.preference(one)),
    ]


def _guard(result: ComparisonResult) -> list[str]:
    tasks = words.of_role(result, "guard")
    told = words.guard_sentence(result)
    if not tasks:
        return []
    title = "Outside the domain: what the tuning has cost"
    lines = _tasks(title, tasks, result)
    if result["guard"] is None or told is None:
        return lines
    worse = ", ".join(result["guard"]["worse_tasks"])
    named = f"Worse on: {escape(worse)}." if worse else "No single task is found worse."
    return [*lines[:2], f"{escape(told)} {named}", "", *lines[2:]]


def _not_asked(result: ComparisonResult) -> list[str]:
    left_out = [f"- {escape(one['name'])}: {escape(one['why'])}" for one in result["not_asked"]]
    return ["## Not asked", "", *left_out] if left_out else []


def _cost(result: ComparisonResult) -> list[str]:
    cost = result["cost"]
    own_cost, price = (
        f"{words.UNKNOWN}: set `evaluation.{name}`" for name in ("own_cost", "baseline.price")
    )
    has_price = any(side["per_request"] is not None for side in cost["sides"])
    missing = [
        told
        for told, known in ((price, has_price), (own_cost, cost["own_per_month"] is not None))
        if not known
    ]
    break_even = (
        f"{cost['break_even_requests']:,} requests a month"
        if cost["break_even_requests"] is not None
        else "; ".join(missing) or "never: the other side asks nothing for a request"
    )
    month = cost["own_per_month"]
    capacity = cost["own_capacity_requests"]
    return [
        "## What it costs",
        "",
        *_table(
            [
                "Side",
                "Requests",
                "Tokens sent",
                "Tokens answered",
                "Median time",
                "95 % within",
                "This evaluation",
                "A request",
            ],
            map(_cost_row, cost["sides"]),
        ),
        "",
        "- Own machine, a month: "
        + (own_cost if month is None else format_money(month, cost["currency"])),
        f"- Cheaper from: {break_even}",
        "- Capacity of this machine: "
        + (
            words.UNKNOWN
            if capacity is None
            else f"{capacity:,} requests a month, one after another"
        ),
    ]


def _cost_row(side: SideCost) -> list[str]:
    def money(amount: float | None) -> str:
        return "no price" if amount is None else escape(format_money(amount, side["currency"]))

    return [
        escape(side["name"]),
        words.count(side["num_requests"]),
        words.count(side["prompt_tokens"]),
        words.count(side["completion_tokens"]),
        words.seconds(side["median_seconds"]),
        words.seconds(side["p95_seconds"]),
        money(side["cost"]),
        money(side["per_request"]),
    ]


def _checks(checks: Sequence[Check]) -> list[str]:
    found = [
        f"- {'✓' if check.ok else '**Worth a look:**'} {escape(check.name)}: {escape(check.detail)}"
        for check in checks
    ]
    return ["## Checked beforehand", "", *found] if found else []


def _guarantees() -> list[str]:
    simulated = load_guarantees()
    if simulated is None:
        return []
    lines = [f"- {escape(name)}: {escape(told)}" for name, told in simulated.lines]
    return ["## How often this method is wrong", "", escape(simulated.introduction), "", *lines]


def _repeat(commands: Sequence[str], details: Mapping[str, str]) -> list[str]:
    return [
        "## Repeat it",
        "",
        *(f"    {' '.join(command.split())}" for command in commands),
        "",
        *(f"- {escape(name)}: {escape(value)}" for name, value in details.items()),
        "",
        "The answers side by side stand in `report.html`, all figures in `comparison.json`.",
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    aligned = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, aligned, *rows)]
