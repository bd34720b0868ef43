"""From all answers to the verdict: `comparison.json` as a function of the answers alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.evaluation_schema import EvaluationConfig, Price, Role, Verdict
from configs.schema import RunConfig
from evals.answer_figures import latency, total
from evals.cost import AskedSide, cost_of_sides
from evals.evidence import TaskEvidence
from evals.gather import Gathered
from evals.judge.disclosure import describe_judge
from evals.metrics.registry import METRICS
from evals.results import (
    ZERO_SHOT,
    BaselineResult,
    CleanResult,
    ComparisonResult,
    CostResult,
    GuardResult,
    NonInferiorityResult,
    PromptResult,
    SideResult,
    TaskResult,
)
from evals.sides import SideName
from evals.statistics.comparison import PairedComparison
from evals.statistics.multiple import benjamini_hochberg, holm
from evals.statistics.non_inferiority import (
    NonInferiority,
    judge_non_inferiority,
    pool_comparisons,
)
from evals.statistics.power import num_samples_to_settle
from evals.statistics.verdict import decide, decide_overall, promote
from evals.task import Answer, EvaluationTask
from evals.task_statistics import (
    better_prompt,
    compare_task,
    interval_of,
    score_of,
    without_known,
)

CUT = "max_tokens"
"""inspect's word for an answer that ended at the token limit."""
ADJUST = {"primary": holm, "exploratory": benjamini_hochberg, "guard": benjamini_hochberg}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A task's evidence with the prompt that the baseline is judged by, and the comparison."""

    evidence: TaskEvidence
    prompt: str
    paired: PairedComparison

    @property
    def task(self) -> EvaluationTask:
        """What was asked."""
        return self.evidence.task


def build_result(
    found: Gathered, *, config: RunConfig, price: Price | None = None
) -> ComparisonResult:
    """Compare the sides task by task, then decide by the rules that the report states.

    price: of the baseline's host, where it has one.
    """
    settings = config.evaluation
    compared = [_compare(evidence, settings) for evidence in found.evidence]
    adjusted = _adjusted_p_values(compared)
    verdicts = [
        decide(
            one.paired.interval,
            p_value,
            confidence=settings.confidence,
            margin=settings.equivalence_margin,
        )
        for one, p_value in zip(compared, adjusted, strict=True)
    ]
    guard = _guard_result(compared, verdicts, settings)
    primary = [
        verdict
        for one, verdict in zip(compared, verdicts, strict=True)
        if one.task.role == "primary"
    ]
    verdict = decide_overall(primary)
    decision = promote(
        verdict,
        guard_passed=None if guard is None else guard["non_inferiority"]["passed"],
        worse_guard_tasks=[] if guard is None else guard["worse_tasks"],
        promote_on=settings.promote_on,
    )
    tasks = [
        _task_result(one, p_value, own_verdict, found, config)
        for one, p_value, own_verdict in zip(compared, adjusted, verdicts, strict=True)
    ]
    return ComparisonResult(
        run=config.name,
        verdict=verdict,
        promote=decision.promote,
        reasons=list(decision.reasons),
        tasks=tasks,
        guard=guard,
        not_asked=found.not_asked,
        cost=_cost(compared, found, config, price),
        confidence=settings.confidence,
        equivalence_margin=settings.equivalence_margin,
        promote_on=settings.promote_on,
    )


def _compare(evidence: TaskEvidence, settings: EvaluationConfig) -> Compared:
    prompt = better_prompt(evidence)
    paired = compare_task(
        evidence.task, evidence.baseline[prompt], evidence.variant, settings=settings
    )
    return Compared(evidence=evidence, prompt=prompt, paired=paired)


def _adjusted_p_values(compared: Sequence[Compared]) -> list[float]:
    """Each task's p-value, adjusted over the tasks of its role."""
    roles: list[Role] = [one.task.role for one in compared]
    adjusted = [one.paired.p_value for one in compared]
    for role in dict.fromkeys(roles):
        places = [place for place, other in enumerate(roles) if other == role]
        of_role = ADJUST[role]([adjusted[place] for place in places])
        for place, p_value in zip(places, of_role, strict=True):
            adjusted[place] = float(p_value)
    return adjusted


def _guard_result(
    compared: Sequence[Compared], verdicts: Sequence[str], settings: EvaluationConfig
) -> GuardResult | None:
    guards = [one for one in compared if one.task.role == "guard"]
    if not guards:
        return None
    pooled = judge_non_inferiority(
        pool_comparisons([one.paired for one in guards]),
        margin=settings.guard.margin,
        confidence=settings.confidence,
    )
    worse = [
        one.task.name
        for one, verdict in zip(compared, verdicts, strict=True)
        if one.task.role == "guard" and verdict == "worse"
    ]
    return GuardResult(
        base_score=_rounded(np.mean([one.paired.baseline_score for one in guards])),
        variant_score=_rounded(np.mean([one.paired.variant_score for one in guards])),
        delta=_rounded(pooled.delta),
        non_inferiority=_non_inferiority(pooled),
        worse_tasks=worse,
    )


def _task_result(
    one: Compared, p_value: float, verdict: Verdict, found: Gathered, config: RunConfig
) -> TaskResult:
    task, paired, settings = one.task, one.paired, config.evaluation
    prompts = {
        name: _prompt_result(task, name, answers, settings=settings)
        for name, answers in one.evidence.baseline.items()
    }
    ours = _prompt_result(task, ZERO_SHOT, one.evidence.variant, settings=settings)
    result = TaskResult(
        name=task.name,
        role=task.role,
        metric=task.metric,
        metric_title=METRICS[task.metric].title,
        licence=task.licence,
        num_samples=paired.num_pairs,
        num_clusters=paired.num_clusters,
        num_epochs=task.num_epochs,
        baseline=BaselineResult(
            **prompts[one.prompt],
            model=one.evidence.baseline_model,
            name=one.evidence.baseline_name,
            prompts=list(prompts.values()),
        ),
        variant=SideResult(**ours, model=config.name, name=config.name),
        delta=_rounded(paired.delta),
        interval=[_rounded(bound) for bound in paired.interval],
        standard_error=_rounded(paired.standard_error),
        p_value=_significant(paired.p_value),
        adjusted_p_value=_significant(p_value),
        minimum_detectable_effect=_rounded(paired.minimum_detectable_effect),
        num_samples_to_settle=num_samples_to_settle(paired, verdict=verdict),
        verdict=verdict,
        num_won=paired.num_won,
        num_lost=paired.num_lost,
        num_tied=paired.num_tied,
        num_answers_changed=count_changed_answers(
            one.evidence.baseline[ZERO_SHOT], one.evidence.variant
        ),
        num_known=sum(question.is_known for question in task.questions),
        clean=_clean_result(one, settings),
        non_inferiority=_own_non_inferiority(one, settings),
        judge=found.judged.get(task.name),
        interval_method=paired.interval_method,
        test_method=paired.test_method,
    )
    if result["judge"] is not None:
        judged_models = [one.evidence.baseline_model, config.model.name]
        told = describe_judge(result, judged_models=judged_models)
        result["judge"] = {**result["judge"], "facts": told.facts, "warnings": told.warnings}
    return result


def _clean_result(one: Compared, settings: EvaluationConfig) -> CleanResult | None:
    """The comparison without known questions; None without any, or with fewer than two left."""
    task = without_known(one.task)
    if len(task.questions) in (0, 1, len(one.task.questions)):
        return None
    ids = {question.id for question in task.questions}
    baseline, variant = (
        [answer for answer in side if answer.id in ids]
        for side in (one.evidence.baseline[one.prompt], one.evidence.variant)
    )
    paired = compare_task(task, baseline, variant, settings=settings)
    return CleanResult(
        num_samples=paired.num_pairs,
        baseline_score=_rounded(paired.baseline_score),
        variant_score=_rounded(paired.variant_score),
        delta=_rounded(paired.delta),
        interval=[_rounded(bound) for bound in paired.interval],
    )


def _own_non_inferiority(one: Compared, settings: EvaluationConfig) -> NonInferiorityResult | None:
    if one.task.role != "guard":
        return None
    return _non_inferiority(
        judge_non_inferiority(
            one.paired.estimate, margin=settings.guard.margin, confidence=settings.confidence
        )
    )


def _non_inferiority(test: NonInferiority) -> NonInferiorityResult:
    return NonInferiorityResult(
        margin=test.margin, lower_bound=_rounded(test.lower_bound), passed=test.passed
    )


def _prompt_result(
    task: EvaluationTask, prompt: str, answers: Sequence[Answer], *, settings: EvaluationConfig
) -> PromptResult:
    interval = interval_of(task, answers, confidence=settings.confidence)
    is_counted = METRICS[task.metric].is_binary and task.num_epochs == 1
    seconds = latency(answers)
    return PromptResult(
        prompt=prompt,
        score=_rounded(score_of(task, answers)),
        interval=[_rounded(bound) for bound in interval],
        num_correct=sum(answer.score == 1 for answer in answers) if is_counted else None,
        prompt_tokens=total(answer.prompt_tokens for answer in answers),
        completion_tokens=total(answer.completion_tokens for answer in answers),
        median_seconds=_rounded_if_known(seconds.median_s),
        p95_seconds=_rounded_if_known(seconds.p95_s),
        num_cut=sum(answer.stop_reason == CUT for answer in answers),
    )


def count_changed_answers(baseline: Sequence[Answer], variant: Sequence[Answer]) -> int:
    """Answers that differ, to the letter, when both sides see the same messages."""
    pairs = zip(baseline, variant, strict=True)
    return sum(theirs.said != ours.said for theirs, ours in pairs)


def _cost(
    compared: Sequence[Compared], found: Gathered, config: RunConfig, price: Price | None
) -> CostResult:
    """Of both sides on the domain's tasks, beside everything that each was asked."""
    domain = [one for one in compared if one.task.role != "guard"]
    theirs = [answer for one in domain for answer in one.evidence.baseline[one.prompt]]
    ours = [answer for one in domain for answer in one.evidence.variant]
    baseline_side: SideName = "baseline" if "baseline" in found.answers else "base"
    sides = [
        AskedSide(
            name=domain[0].evidence.baseline_name,
            answers=_all_answers(found, baseline_side) or theirs,
            judged=theirs,
            price=price,
        ),
        AskedSide(name=config.name, answers=_all_answers(found, "variant") or ours, judged=ours),
    ]
    return cost_of_sides(sides, own_cost=config.evaluation.own_cost, own=config.name)


def _all_answers(found: Gathered, side: SideName) -> list[Answer]:
    of_side = found.answers.get(side, {})
    return [answer for answers in of_side.values() for answer in answers]


def _significant(p_value: float) -> float:
    return float(f"{p_value:.6g}")


def _rounded(share: float | np.floating[Any]) -> float:
    # Adding zero turns a rounded -0.0 into 0.0.
    return round(float(share), 6) + 0.0


def _rounded_if_known(seconds: float | None) -> float | None:
    return None if seconds is None else _rounded(seconds)
