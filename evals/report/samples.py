"""Both sides' answers beside each other: who won, and in which words they differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data.compared_samples import Outcome
from data.conversation import ToolCall
from data.word_diff import Piece, compare_words
from evals.evidence import TaskEvidence
from evals.results import TaskResult
from evals.task import Answer, Question

OUTCOMES: dict[Outcome, str] = {
    "won": "Won by the variant",
    "lost": "Lost by the variant",
    "both_wrong": "Both wrong",
    "both_right": "Both right",
    "same": "Same score, between right and wrong",
}
# A difference smaller than this is rounding of a mean, not a win.
SAME_SCORE = 1e-9
MAX_CHARACTERS = 4_000
MAX_QUESTION_CHARACTERS = 6_000


class Shown(NamedTuple):
    """An answer as it is shown; num_left_out: characters past the limit."""

    pieces: list[Piece]
    num_left_out: int
    score: float
    label: str
    stop_reason: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question with both answers; scores are means over epochs, texts those of the first."""

    id: str
    outcome: Outcome
    question: str
    num_question_left_out: int
    reference: str
    baseline: Shown
    variant: Shown
    is_known: bool
    num_epochs: int


@dataclass(frozen=True, kw_only=True)
class SampleGroup:
    """All questions of a task with one outcome, in the task's order."""

    task: str
    outcome: Outcome
    title: str
    pairs: "Sequence[Pair]"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """All epochs' answers of both sides to one question; nothing is compared yet."""

    question: Question
    baseline: Sequence[Answer]
    variant: Sequence[Answer]
    baseline_score: float
    variant_score: float

    @property
    def outcome(self) -> Outcome:
        """Who scored higher; where nobody did, whether both were right."""
        difference = self.variant_score - self.baseline_score
        if abs(difference) > SAME_SCORE:
            return "won" if difference > 0 else "lost"
        if self.variant_score >= 1 - SAME_SCORE:
            return "both_right"
        return "both_wrong" if self.variant_score <= SAME_SCORE else "same"


def pair_answers(evidence: TaskEvidence, result: TaskResult) -> list[Pair]:
    """Both sides' answers to each question of a task, in the task's order.

    The baseline's answers are those with the prompt that it is judged by.
    """
    epochs = evidence.task.num_epochs
    theirs = _by_question(evidence.baseline[result["baseline"]["prompt"]], epochs)
    ours = _by_question(evidence.variant, epochs)
    pairs = []
    for question, before, after in zip(evidence.task.questions, theirs, ours, strict=True):
        assert {answer.id for answer in (*before, *after)} == {question.id}, (
            "answers are not paired"
        )
        pairs.append(
            Pair(
                question=question,
                baseline=before,
                variant=after,
                baseline_score=_mean_score(before),
                variant_score=_mean_score(after),
            )
        )
    return pairs


def group_samples(evidence: TaskEvidence, result: TaskResult) -> list[SampleGroup]:
    """A task's questions by outcome, each of which is there even when it is empty."""
    pairs = pair_answers(evidence, result)
    return [
        SampleGroup(
            task=evidence.task.name,
            outcome=outcome,
            title=title,
            pairs=[pair for pair in pairs if pair.outcome == outcome],
        )
        for outcome, title in OUTCOMES.items()
        if outcome != "same" or any(pair.outcome == "same" for pair in pairs)
    ]


def build_sample(pair: Pair) -> Sample:
    """A pair as it is shown: texts cut to what a page can hold, differing words marked."""
    before, after = pair.baseline[0], pair.variant[0]
    texts = [answer_text(answer) for answer in (before, after)]
    cut = [text[:MAX_CHARACTERS] for text in texts]
    theirs, ours = compare_words(*cut)
    # The variant is asked without worked examples, so its prompt is the bare question.
    question = after.question
    return Sample(
        id=after.id,
        outcome=pair.outcome,
        question=question[:MAX_QUESTION_CHARACTERS],
        num_question_left_out=max(0, len(question) - MAX_QUESTION_CHARACTERS),
        reference=after.reference[:MAX_CHARACTERS],
        baseline=_shown(theirs, texts[0], pair.baseline_score, before),
        variant=_shown(ours, texts[1], pair.variant_score, after),
        is_known=pair.question.is_known,
        num_epochs=len(pair.variant),
    )


def answer_text(answer: Answer) -> str:
    """What was answered, calls in words after the text."""
    calls = "\n".join(_call_text(call) for call in answer.tool_calls)
    return "\n".join(part for part in (answer.text.strip(), calls) if part)


def _shown(pieces: list[Piece], text: str, score: float, answer: Answer) -> Shown:
    return Shown(
        pieces=pieces if text else [],
        num_left_out=max(0, len(text) - MAX_CHARACTERS),
        score=score,
        label=answer.label,
        stop_reason=answer.stop_reason,
    )


def _call_text(call: ToolCall) -> str:
    return f"calls {call['function']['name']}({call['function']['arguments']})"


def _by_question(answers: Sequence[Answer], num_epochs: int) -> Iterator[Sequence[Answer]]:
    for start in range(0, len(answers), num_epochs):
        yield answers[start : start + num_epochs]


def _mean_score(answers: Sequence[Answer]) -> float:
    return sum(answer.score for answer in answers) / len(answers)
