"""Numbers and verdicts as people read them; what HTML and Markdown have in common."""

from collections.abc import Sequence

from configs.evaluation_schema import Role, Verdict
from evals.metrics.registry import METRICS
from evals.results import ZERO_SHOT, ComparisonResult, PromptResult, TaskResult, VoteResult

UNKNOWN = "not known"
SIGNS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "equivalent": "=", "inconclusive": "?"}
"""Beside every verdict's colour, so that colour is never alone."""
ROLE_TITLES: dict[Role, str] = {
    "primary": "Main tasks, which decide",
    "exploratory": "Further tasks, told but not decisive",
    "guard": "Outside the domain: what the tuning may have cost",
}
MAX_SUMMARIES = 4


def signed(value: float, *, digits: int = 1) -> str:
    """A number with its sign, a real minus, and no sign for what rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def points(share: float) -> str:
    """A difference of shares in percentage points, without the unit."""
    return signed(100 * share)


def percent(share: float) -> str:
    """A share in percent with one digit, without the sign."""
    return f"{100 * share:.1f}"


def short_percent(share: float) -> str:
    """A share in percent as a setting gives it: `95`, `2.5`; without the sign."""
    return f"{100 * share:.6g}"


def p_value(value: float) -> str:
    """A p-value, three digits at most."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """A duration, or a dash."""
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s"


def count(number: int | None) -> str:
    """A whole number with thousands set off, or a dash."""
    return "–" if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 question`, `1,200 questions`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def of_role(result: ComparisonResult, *roles: Role) -> list[TaskResult]:
    """The tasks of these roles, in the result's order."""
    return [task for task in result["tasks"] if task["role"] in roles]


def headline(result: ComparisonResult) -> str:
    """The verdict in one line, for instance "Better: +62.0 points"."""
    deltas = [task["delta"] for task in of_role(result, "primary")]
    verdict = result["verdict"].capitalize()
    low, high = points(min(deltas)), points(max(deltas))
    if len(deltas) == 1:
        return f"{verdict}: {low} points"
    span = low if low == high else f"{low} to {high}"
    return f"{verdict}: {span} points on {len(deltas)} tasks"


def recommendation(result: ComparisonResult) -> str:
    """Promote or not, as advice to whoever decides."""
    own = result["tasks"][0]
    variant, baseline = own["variant"]["name"], own["baseline"]["name"]
    if result["promote"]:
        return f"Promote: {variant} can take the place of {baseline}."
    if result["verdict"] in result["promote_on"]:
        return f"Do not promote: {variant} {_loss_outside(result)}."
    why = {
        "better": f"{variant} is better than {baseline}, which is not what was asked for.",
        "worse": f"{variant} is worse than {baseline}.",
        "equivalent": f"{variant} is as good as {baseline}, not better.",
        "inconclusive": f"these questions do not show whether {variant} is better than {baseline}.",
    }
    return f"Do not promote: {why[result['verdict']]}"


def _loss_outside(result: ComparisonResult) -> str:
    """What stands against a variant whose verdict alone would do."""
    guard = result["guard"]
    assert guard is not None, "only a guard set can stand against it"
    if guard["worse_tasks"]:
        return f"has become worse outside its domain ({', '.join(guard['worse_tasks'])})"
    if guard["delta"] < -guard["non_inferiority"]["margin"]:
        return f"seems to have lost {percent(-guard['delta'])} points outside its domain"
    return "may have lost too much outside its domain; these questions do not rule it out"


def summaries(result: ComparisonResult) -> list[tuple[str, str]]:
    """The main tasks by name with a summary each; many of them counted instead."""
    primary = of_role(result, "primary")
    if len(primary) <= MAX_SUMMARIES:
        return [(task["name"], summary(task)) for task in primary]
    verdicts = [task["verdict"] for task in primary]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in SIGNS if one in verdicts)
    return [(f"{len(primary)} main tasks", f"{counts}. Each one stands below.")]


def summary(task: TaskResult) -> str:
    """How a task went, in one or two sentences that need no statistics."""
    size = task["num_samples"]
    variant, baseline = task["variant"], task["baseline"]
    shown = "" if baseline["prompt"] == ZERO_SHOT else f", shown {baseline['prompt']},"
    if _counts_right(task):
        scores = (
            f"{variant['name']} answered {variant['num_correct']} of {counted(size, 'question')} "
            f"right; {baseline['name']}{shown} {baseline['num_correct']}."
        )
    else:
        scores = (
            f"{variant['name']} scored {percent(variant['score'])} of 100 on "
            f"{counted(size, 'question')}; {baseline['name']}{shown} {percent(baseline['score'])}."
        )
    return f"{scores} {meaning(task)}"


def meaning(task: TaskResult) -> str:
    """What the verdict on a task says, without statistics."""
    if task["verdict"] == "equivalent":
        return "Both are as good as each other, within the margin fixed beforehand."
    if task["verdict"] == "inconclusive":
        least = percent(task["minimum_detectable_effect"])
        return (
            f"That does not settle it: with so many questions, differences are found reliably "
            f"only from about {least} points on."
        )
    return "Chance in the choice of questions does not explain so large a difference."


def score(side: PromptResult) -> str:
    """A score with its interval, in percent."""
    low, high = side["interval"]
    return f"{percent(side['score'])} ({percent(low)} to {percent(high)})"


def interval(bounds: Sequence[float]) -> str:
    """An interval of a difference, in points."""
    return f"{points(bounds[0])} to {points(bounds[1])}"


def questions(task: TaskResult) -> str:
    """How much was asked: questions, families of them, times."""
    parts = [counted(task["num_samples"], "question")]
    if task["num_clusters"] < task["num_samples"]:
        parts.append(f"in {counted(task['num_clusters'], 'group')}")
    if task["num_epochs"] > 1:
        parts.append(f"asked {task['num_epochs']} times each")
    return ", ".join(parts)


def guard_sentence(result: ComparisonResult) -> str | None:
    """What the tuning has cost outside the domain; None where nobody asked."""
    guard = result["guard"]
    if guard is None:
        return None
    bound = guard["non_inferiority"]
    margin = short_percent(bound["margin"])
    change = (
        f"{percent(guard['base_score'])} before tuning, {percent(guard['variant_score'])} after"
    )
    if bound["passed"]:
        return (
            f"Held: outside the domain the variant does not fall behind its own base by {margin} "
            f"points or more ({change}, {points(guard['delta'])} points)."
        )
    return (
        f"Not held: outside the domain a loss of {margin} points or more cannot be ruled out "
        f"({change}, {points(guard['delta'])} points; it may be as low as "
        f"{points(bound['lower_bound'])})."
    )


def _counts_right(task: TaskResult) -> bool:
    return (
        not METRICS[task["metric"]].is_corpus
        and task["variant"]["num_correct"] is not None
        and task["baseline"]["num_correct"] is not None
    )


def vote_share(one: VoteResult) -> str:
    """The share of votes with its interval, in percent."""
    if one["interval"] is None:
        return percent(one["share"])
    low, high = one["interval"]
    return f"{percent(one['share'])} ({percent(low)} to {percent(high)})"


def preference(one: VoteResult) -> str:
    """What the votes on two models say, in a word or three."""
    told = {"better": f"{one['model']} preferred", "worse": f"{one['other']} preferred"}
    return told.get(one["verdict"], "not settled")
