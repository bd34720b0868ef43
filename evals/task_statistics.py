"""One task's answers as the statistics take them: scores, labels, clusters."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt

from configs.evaluation_schema import EvaluationConfig
from data.conversation import text_of
from evals.evidence import TaskEvidence
from evals.metrics.labels import LabelCounts, count_labels, label_set, macro_f1
from evals.metrics.registry import METRICS
from evals.statistics.comparison import PairedComparison, Rule
from evals.statistics.corpus import compare_macro_f1, macro_f1_interval
from evals.statistics.estimate import Interval
from evals.statistics.paired import compare_paired
from evals.statistics.proportions import mean_score_interval
from evals.task import Answer, EvaluationTask

Scores = npt.NDArray[np.float64]


def better_prompt(evidence: TaskEvidence) -> str:
    """The prompt with which the baseline scored higher; in a tie the one with examples."""
    prompts = list(evidence.baseline)[::-1]
    return max(prompts, key=lambda prompt: score_of(evidence.task, evidence.baseline[prompt]))


def compare_task(
    task: EvaluationTask,
    baseline: Sequence[Answer],
    variant: Sequence[Answer],
    *,
    settings: EvaluationConfig,
) -> PairedComparison:
    """The paired comparison of two sides' answers, each in the order of questions, then epochs."""
    clusters = [question.cluster for question in task.questions]
    rule = Rule(
        confidence=settings.confidence,
        margin=settings.equivalence_margin,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
    )
    if METRICS[task.metric].is_corpus:
        return compare_macro_f1(
            _label_counts(task, baseline),
            _label_counts(task, variant),
            clusters=clusters,
            **asdict(rule),
        )
    return compare_paired(
        _scores(task, baseline), _scores(task, variant), clusters=clusters, **asdict(rule)
    )


def score_of(task: EvaluationTask, answers: Sequence[Answer]) -> float:
    """The mean of the answers' scores or, of a corpus metric, that over all of them."""
    if not METRICS[task.metric].is_corpus:
        return float(_scores(task, answers).mean())
    counts = _label_counts(task, answers)
    kinds = (counts.true_positives, counts.false_positives, counts.false_negatives)
    return float(macro_f1(*(kind.sum(axis=0) for kind in kinds)))


def interval_of(task: EvaluationTask, answers: Sequence[Answer], *, confidence: float) -> Interval:
    """The interval of `score_of`."""
    clusters = [question.cluster for question in task.questions]
    if METRICS[task.metric].is_corpus:
        return macro_f1_interval(
            _label_counts(task, answers), clusters=clusters, confidence=confidence
        )
    return mean_score_interval(_scores(task, answers), clusters=clusters, confidence=confidence)


def without_known(task: EvaluationTask) -> EvaluationTask:
    """The same task without the questions that the rows to train on give away."""
    return replace(task, questions=tuple(one for one in task.questions if not one.is_known))


def _scores(task: EvaluationTask, answers: Sequence[Answer]) -> Scores:
    """Scores of shape (questions, epochs)."""
    flat = np.array([answer.score for answer in answers], dtype=float)
    return flat.reshape(len(task.questions), task.num_epochs)


def _label_counts(task: EvaluationTask, answers: Sequence[Answer]) -> LabelCounts:
    """Counts of each question, summed over its epochs."""
    truth = [label_set(text_of(question.reference)) for question in task.questions]
    first, *others = (
        count_labels(truth, [label_set(one.label) for one in answers[epoch :: task.num_epochs]])
        for epoch in range(task.num_epochs)
    )
    for other in others:
        first = LabelCounts(
            labels=first.labels,
            true_positives=first.true_positives + other.true_positives,
            false_positives=first.false_positives + other.false_positives,
            false_negatives=first.false_negatives + other.false_negatives,
        )
    return first
