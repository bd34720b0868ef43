"""The metrics by the names that a configuration gives them, and what a reader is told of each."""

from typing import NamedTuple

from configs.evaluation_schema import MetricName
from evals.metrics.checks import score_checks
from evals.metrics.choice import score_choice
from evals.metrics.command import score_command
from evals.metrics.json_schema import score_json_schema
from evals.metrics.labels import score_macro_f1
from evals.metrics.score import Metric, Reply, Score
from evals.metrics.text import score_exact_match, score_normalized_match
from evals.metrics.tokens import score_rouge_l, score_token_f1
from evals.metrics.tool_calls import score_tool_calls
from evals.task import Question


class MetricFacts(NamedTuple):
    """What reports and statistics need to know of a metric.

    title: in tables; description: one sentence for a reader who is no statistician; is_binary:
    single answers score 0 or 1; is_judged: a judge model gives the scores; is_corpus: the task's
    score is computed over all answers (`evals.metrics.labels`), not the mean of single scores.
    """

    title: str
    description: str
    is_binary: bool = True
    is_judged: bool = False
    is_corpus: bool = False


METRICS: dict[MetricName, MetricFacts] = {
    "exact_match": MetricFacts(
        "Exact match", "Share of questions answered with exactly the expected text."
    ),
    "normalized_match": MetricFacts(
        "Match",
        "Share of questions answered with the expected text, letter case, white space and a final "
        "period aside.",
    ),
    "choice": MetricFacts("Multiple choice", "Share of questions whose right option was chosen."),
    "macro_f1": MetricFacts(
        "Macro F1",
        "How well each label is found without being given wrongly (F1), averaged so that rare "
        "labels weigh as much as common ones.",
        is_corpus=True,
    ),
    "token_f1": MetricFacts(
        "Token F1",
        "Overlap of the answer's words with those of the expected answer, whatever their order.",
        is_binary=False,
    ),
    "rouge_l": MetricFacts(
        "ROUGE-L",
        "Overlap of the answer's words with those of the expected answer, in the same order.",
        is_binary=False,
    ),
    "json_schema": MetricFacts(
        "Valid JSON", "Share of answers that are JSON and follow the expected schema."
    ),
    "tool_call": MetricFacts(
        "Tool calls", "Share of answers that call the expected functions with the same arguments."
    ),
    "command": MetricFacts(
        "Command", "Share of answers that are the expected shell command, or one equal to it."
    ),
    "checks": MetricFacts(
        "Checks", "Share of answers that meet every requirement that a program can check."
    ),
    "rubric": MetricFacts(
        "Rubric",
        "How well answers meet a written rubric, in the eyes of a judge model.",
        is_binary=False,
        is_judged=True,
    ),
    "pairwise": MetricFacts(
        "Preference",
        "Share of questions whose answer a judge model prefers to the other side's; ties count as "
        "half.",
        is_binary=False,
        is_judged=True,
    ),
}


def judge_later(reply: Reply, question: Question) -> Score:
    """0 for every answer, until the judge has seen both sides' answers."""
    return Score(0.0, why="judged later")


_FUNCTIONS: dict[MetricName, Metric] = {
    "exact_match": score_exact_match,
    "normalized_match": score_normalized_match,
    "choice": score_choice,
    "macro_f1": score_macro_f1,
    "token_f1": score_token_f1,
    "rouge_l": score_rouge_l,
    "json_schema": score_json_schema,
    "tool_call": score_tool_calls,
    "command": score_command,
    "checks": score_checks,
    "rubric": judge_later,
    "pairwise": judge_later,
}


def find_metric(name: MetricName) -> Metric:
    """The function that scores single answers by metric `name`."""
    return _FUNCTIONS[name]
