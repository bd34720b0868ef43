"""How the verdict was reached, in sentences for a reader who is no statistician."""

from collections.abc import Iterator, Sequence

from configs.evaluation_schema import EvaluationConfig
from evals.evidence import TaskEvidence
from evals.metrics.registry import METRICS, MetricFacts
from evals.report.words import of_role, short_percent
from evals.results import ComparisonResult


def metrics_used(result: ComparisonResult) -> list[MetricFacts]:
    """The metrics of the result's tasks, each once."""
    return [METRICS[name] for name in dict.fromkeys(task["metric"] for task in result["tasks"])]


def asking(result: ComparisonResult, evidence: Sequence[TaskEvidence]) -> list[str]:
    """What both sides were sent, and in what they may differ."""
    tasks = [one.task for one in evidence]
    temperatures = sorted({task.temperature for task in tasks})
    lengths = sorted({task.max_tokens for task in tasks})
    told = [
        "Both sides answer the same questions over the same kind of interface (chat completions): "
        "identical messages, tools and parameters, "
        f"temperature {_listed(temperatures)}, answers of at most {_listed(lengths)} tokens.",
        "The variant is asked exactly as it is served: template, number format and server are part "
        "of what is measured.",
    ]
    if any(len(one.baseline) > 1 for one in evidence):
        told.append(
            "The baseline is also asked with worked examples from the training rows, and is judged "
            "by the better of its two prompts; so the variant does not win by knowing the form of "
            "the answer alone."
        )
    if any(task.num_epochs > 1 for task in tasks):
        told.append("Each question is asked several times, and the mean of its scores counts.")
    if of_role(result, "guard"):
        told.append(
            "Outside the domain the variant is compared with its own base model, before tuning: "
            "what is lost there is what the tuning has cost."
        )
    return told


def rules(result: ComparisonResult, settings: EvaluationConfig) -> list[tuple[str, str]]:
    """Each step from answers to the recommendation: its name and what is done."""
    return list(_rules(result, settings))


def _rules(result: ComparisonResult, settings: EvaluationConfig) -> Iterator[tuple[str, str]]:
    confidence, margin = (
        short_percent(result[key]) for key in ("confidence", "equivalence_margin")
    )
    level = f"{1 - result['confidence']:.3g}"
    intervals = dict.fromkeys(task["interval_method"] for task in result["tasks"])
    tests = dict.fromkeys(task["test_method"] for task in result["tasks"])
    yield (
        "Pairs",
        "Both sides answer the same questions, so they are compared question by question.",
    )
    yield "Interval", f"{confidence} %, by {'; '.join(intervals)}."
    if any(task["num_clusters"] < task["num_samples"] for task in result["tasks"]):
        yield (
            "Groups",
            "Questions that belong together (a document, near duplicates) count as a group, "
            "because they tend to be right or wrong together.",
        )
    yield "Test", f"{'; '.join(tests)}."
    if len(of_role(result, "primary")) > 1:
        yield (
            "Several main tasks",
            "p is adjusted by Holm's method: who looks at several tasks finds a difference by "
            "chance more easily.",
        )
    if len(of_role(result, "exploratory")) > 1 or len(of_role(result, "guard")) > 1:
        yield (
            "Other tasks",
            "p is adjusted by the method of Benjamini and Hochberg; they are told, and do not "
            "decide about better or worse.",
        )
    yield "Better", f"The interval lies above 0 and adjusted p is below {level}."
    yield "Worse", f"The interval lies below 0 and adjusted p is below {level}."
    yield (
        "Equivalent",
        f"The interval lies inside ± {margin} points, a margin fixed in the configuration before "
        "anything was asked.",
    )
    yield "Inconclusive", "Everything else."
    yield (
        "Smallest difference found",
        "The true difference that so many questions find in 80 of 100 evaluations (minimum "
        "detectable effect, Miller 2024, arXiv 2411.00640).",
    )
    if len(of_role(result, "primary")) > 1:
        yield (
            "Overall",
            "Worse where any main task is worse; else better where any is better; else equivalent "
            "where all are; else inconclusive.",
        )
    if result["guard"] is not None:
        limit = short_percent(result["guard"]["non_inferiority"]["margin"])
        yield (
            "Outside the domain",
            f"Held where the lower one-sided bound of the mean difference lies above −{limit} "
            "points (non-inferiority), each task with the same weight.",
        )
    wanted = " or ".join(settings.promote_on)
    guard = ""
    if result["guard"] is not None:
        guard = ", the tasks outside the domain hold, and none of them alone is worse"
    yield "Promote", f"Where the verdict is {wanted}{guard}."


def _listed(values: Sequence[float]) -> str:
    low, high = values[0], values[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}, by task"
