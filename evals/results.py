"""The result of an evaluation as `comparison.json` holds it; a function of the answers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from configs.schema import EvaluationConfig
from data.conversation import Conversation
from evals.asking import Answer
from evals.statistics import PairedComparison, Verdict, compare_paired, wilson_interval
from evals.targets import Target

ZERO_SHOT = "zero-shot"


class PromptResult(TypedDict):
    """How a model did with one prompt; score and interval (Wilson) are shares of 1.

    Tokens are sums over all questions, None where the host does not report them.
    """

    prompt: str
    score: float
    interval: list[float]
    num_correct: int
    prompt_tokens: int | None
    completion_tokens: int | None


class SideResult(PromptResult):
    """One side of the comparison: `model` as requests name it, `name` as reports do."""

    model: str
    name: str


class BaselineResult(SideResult):
    """The baseline with its better prompt, and every prompt that it was given."""

    prompts: list[PromptResult]


class TaskResult(TypedDict):
    """One task; delta, ci95, effect and margin are shares of 1, ci95 with `confidence`."""

    name: str
    num_samples: int
    baseline: BaselineResult
    variant: SideResult
    delta: float
    ci95: list[float]
    p_value: float
    minimum_detectable_effect: float
    verdict: Verdict
    confidence: float
    equivalence_margin: float
    num_won: int
    num_lost: int
    num_tied: int
    num_answers_changed: int
    interval_method: str
    test_method: str


class ComparisonResult(TypedDict):
    """The whole file; `verdict` is the task's."""

    tasks: list[TaskResult]
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All answers, each list in the order of the questions.

    baseline: by prompt, zero-shot first; variant: zero-shot; examples: those of the other prompt.
    """

    baseline: Mapping[str, Sequence[Answer]]
    variant: Sequence[Answer]
    examples: Sequence[Conversation]

    @property
    def better_prompt(self) -> str:
        """The prompt with which the baseline got more right; in a tie the one with examples."""
        prompts = list(self.baseline)[::-1]
        return max(prompts, key=lambda prompt: _num_correct(self.baseline[prompt]))


def count_changed_answers(baseline: Sequence[Answer], variant: Sequence[Answer]) -> int:
    """Answers that differ, to the letter, when both sides see the same messages."""
    pairs = zip(baseline, variant, strict=True)
    return sum(theirs.answer != ours.answer for theirs, ours in pairs)


def name_prompt(num_examples: int) -> str:
    """How files and reports call a prompt with that many worked examples."""
    if num_examples == 0:
        return ZERO_SHOT
    return "1 example" if num_examples == 1 else f"{num_examples} examples"


def build_result(
    evidence: Evidence, *, settings: EvaluationConfig, baseline: Target, variant: Target
) -> ComparisonResult:
    """Compare the variant with the baseline's better prompt, question by question."""
    prompt = evidence.better_prompt
    paired = compare_paired(
        [answer.correct for answer in evidence.baseline[prompt]],
        [answer.correct for answer in evidence.variant],
        confidence=settings.confidence,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        margin=settings.equivalence_margin,
    )
    prompts = {
        name: _prompt_result(name, answers, confidence=settings.confidence)
        for name, answers in evidence.baseline.items()
    }
    task = _task_result(
        paired,
        name=settings.task,
        baseline=BaselineResult(
            **prompts[prompt],
            model=baseline.model,
            name=baseline.name,
            prompts=list(prompts.values()),
        ),
        variant=SideResult(
            **_prompt_result(ZERO_SHOT, evidence.variant, confidence=settings.confidence),
            model=variant.model,
            name=variant.name,
        ),
        num_answers_changed=count_changed_answers(evidence.baseline[ZERO_SHOT], evidence.variant),
    )
    return ComparisonResult(tasks=[task], verdict=task["verdict"])


def _task_result(
    paired: PairedComparison,
    *,
    name: str,
    baseline: BaselineResult,
    variant: SideResult,
    num_answers_changed: int,
) -> TaskResult:
    return TaskResult(
        name=name,
        num_samples=paired.num_pairs,
        baseline=baseline,
        variant=variant,
        delta=_rounded(paired.delta),
        ci95=[_rounded(bound) for bound in paired.interval],
        p_value=float(f"{paired.p_value:.6g}"),
        minimum_detectable_effect=_rounded(paired.minimum_detectable_effect),
        verdict=paired.verdict,
        confidence=paired.confidence,
        equivalence_margin=paired.margin,
        num_won=paired.num_won,
        num_lost=paired.num_lost,
        num_tied=paired.num_tied,
        num_answers_changed=num_answers_changed,
        interval_method=paired.interval_method,
        test_method=paired.test_method,
    )


def _prompt_result(prompt: str, answers: Sequence[Answer], *, confidence: float) -> PromptResult:
    num_correct = _num_correct(answers)
    interval = wilson_interval(num_correct, len(answers), confidence=confidence)
    return PromptResult(
        prompt=prompt,
        score=_rounded(num_correct / len(answers)),
        interval=[_rounded(bound) for bound in interval],
        num_correct=num_correct,
        prompt_tokens=_total([answer.prompt_tokens for answer in answers]),
        completion_tokens=_total([answer.completion_tokens for answer in answers]),
    )


def _num_correct(answers: Sequence[Answer]) -> int:
    return sum(answer.correct for answer in answers)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _rounded(share: float) -> float:
    # Adding zero turns a rounded -0.0 into 0.0.
    return round(share, 6) + 0.0
