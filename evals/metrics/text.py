"""Answers compared with the reference as texts: to the letter, or but for case and white space."""

from collections.abc import Callable

from data.conversation import text_of
from evals.metrics.score import Metric, Reply, Score
from evals.task import Question


def normalize_answer(text: str) -> str:
    """The form in which answers are compared.

    White space at the ends goes, each run of it inside becomes one blank, one trailing period is
    dropped, and letters are case-folded. Nothing else is forgiven: an answer inside a sentence is
    not the answer.
    """
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()


def text_metric(judge: Callable[[str, str], Score]) -> Metric:
    """A metric out of what compares the answer's text (first) with the reference's (second).

    A reference that only calls tools leaves nothing to compare: it scores 0, lest an empty answer
    equal it.
    """

    def score(reply: Reply, question: Question) -> Score:
        expected = text_of(question.reference)
        if question.reference.get("tool_calls") and not expected.strip():
            return Score(0.0, why="the reference calls tools, which metric tool_call compares")
        return judge(reply.text, expected)

    return score


def judge_exact(answer: str, expected: str) -> Score:
    """1 where the texts are equal to the letter, but for white space around them."""
    return Score(float(answer.strip() == expected.strip()), label=answer.strip())


def judge_normalized(answer: str, expected: str) -> Score:
    """1 where the texts are equal after `normalize_answer`."""
    label = normalize_answer(answer)
    return Score(float(label == normalize_answer(expected)), label=label)


score_exact_match = text_metric(judge_exact)
score_normalized_match = text_metric(judge_normalized)
