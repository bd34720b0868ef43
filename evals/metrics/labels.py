"""Classification: labels, or sets of them, and macro F1 over a whole task."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evals.metrics.score import Score
from evals.metrics.text import normalize_answer, text_metric

NO_LABEL = "none"
YES_NO = frozenset({"yes", "no", "maybe"})
LEADING_WORD = re.compile(r"[\s*_`\"'“]*([^\W\d_]+)[*_`\"'”]*[ \t]*(?=[.,;:!\n–—]|\s-\s|\Z)")

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """What each question adds to the counts of each label, to be summed over any of the questions.

    labels: those that occur in the truth, sorted; the arrays are of shape (questions, labels).
    """

    labels: tuple[str, ...]
    true_positives: Counts
    false_positives: Counts
    false_negatives: Counts


def label_set(text: str) -> frozenset[str]:
    """The labels that a text names, apart by commas, each after `normalize_answer`.

    All periods at a label's end go, so that the labels of a list of labels are that list's again.
    "none" is kept as a label of its own; `count_labels` takes it for the empty set where labels
    come in sets. A text without any label is the empty set.
    """
    parts = (normalize_answer(part).rstrip(". ") for part in text.split(","))
    return frozenset(part for part in parts if part)


def judge_labels(answer: str, expected: str) -> Score:
    """1 where answer and reference name the same labels, in any order; label: those understood.

    An answer is its labels and nothing else ("The answer is spam." names none that anybody
    expects), for in a sentence one cannot tell a label from a mention of it. One exception, for
    both sides alike: where the reference is yes, no or maybe, an answer that begins with one of
    these, closed by punctuation or the line's end ("Yes, because …"), has given it, unless it
    goes on with another of them.
    """
    labels, wanted = label_set(answer), label_set(expected)
    if wanted <= YES_NO and labels - YES_NO:
        labels = _leading_yes_or_no(answer) or labels
    return Score(float(labels == wanted), label=", ".join(sorted(labels)))


def count_labels(
    truth: Sequence[frozenset[str]], predicted: Sequence[frozenset[str]]
) -> LabelCounts:
    """Per question and label: right, given wrongly, missed (each 0 or 1).

    The classes are the labels that occur in the truth. A predicted label outside them counts as
    the miss of the right one, and makes no class of its own: a model that writes freely invents
    any number of labels, and each would enter the average as a class with F1 0, which is what
    scikit-learn's `f1_score(average="macro")` does unless `labels` is given (here: as if
    `labels=sorted(set(y_true))`). Where some truth holds several labels, "none" is the empty set
    and no class. Errors: `ValueError` for sequences of unequal length, or truth without any label.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true sets of labels against {len(predicted)} predicted")
    if any(len(labels) > 1 for labels in truth):
        truth = [labels - {NO_LABEL} for labels in truth]
    labels = tuple(sorted(frozenset().union(*truth)))
    if not labels:
        raise ValueError("no question has a true label")
    true, given = _indicators(truth, labels), _indicators(predicted, labels)
    return LabelCounts(
        labels=labels,
        true_positives=(true & given).astype(np.int64),
        false_positives=(~true & given).astype(np.int64),
        false_negatives=(true & ~given).astype(np.int64),
    )


def macro_f1(
    true_positives: npt.ArrayLike, false_positives: npt.ArrayLike, false_negatives: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Unweighted mean of the labels' F1 = 2tp / (2tp + fp + fn), of shapes (…, labels) -> (…).

    Summed counts go in, those of all questions or of any resample of them. Labels without a true
    occurrence (tp + fn = 0), as resamples have, are left out of the mean, so that the figure is the
    same function of a resample as of the whole; 0 where no label occurs.
    """
    right, wrong, missed = (
        np.asarray(counts, dtype=np.float64)
        for counts in (true_positives, false_positives, false_negatives)
    )
    occurs = right + missed > 0
    scores = np.where(occurs, 2 * right / np.where(occurs, 2 * right + wrong + missed, 1), 0.0)
    mean: npt.NDArray[np.float64] = scores.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
    return mean


def _leading_yes_or_no(answer: str) -> frozenset[str]:
    """Which of yes, no and maybe an answer begins with; none where it goes on with another."""
    first = LEADING_WORD.match(answer)
    if first is None or first[1].casefold() not in YES_NO:
        return frozenset()
    second = LEADING_WORD.match(answer.lstrip()[len(first[0].lstrip()) :].lstrip(".,;:!–—- \n"))
    words = {match[1].casefold() for match in (first, second) if match}
    return frozenset({first[1].casefold()}) if len(words & YES_NO) == 1 else frozenset()


def _indicators(sets: Sequence[frozenset[str]], labels: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Which question has which label: (questions, labels)."""
    columns = {label: column for column, label in enumerate(labels)}
    held = np.zeros((len(sets), len(labels)), dtype=bool)
    for row, names in enumerate(sets):
        held[row, [columns[name] for name in names if name in columns]] = True
    return held


score_macro_f1 = text_metric(judge_labels)
