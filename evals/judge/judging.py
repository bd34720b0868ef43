"""From both sides' answers to what a judge is asked, and from its replies to their scores.

The judge is asked by `evals.asking.ask` as every other target, so its replies are logged, resumed
and paid once. inspect's `model_graded_qa` judges inside the judged model's own run, which could
then not be resumed, priced or repeated by itself, and knows neither pairs nor marks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from inspect_ai import Task

from configs.evaluation_schema import JudgeConfig
from evals.evidence import TaskEvidence
from evals.judge.material import shown_answer
from evals.judge.pairwise import PairwiseReading, pairwise_prompts, read_pairwise
from evals.judge.rubric import read_rubric, rubric_prompts
from evals.results import JudgeResult
from evals.targets import Target
from evals.task import Answer, EvaluationTask
from evals.task_statistics import better_prompt
from evals.tasks import build_inspect_task, log_name


@dataclass(frozen=True, kw_only=True)
class JudgedEvidence:
    """The evidence with the judge's scores, and how the judge worked."""

    evidence: TaskEvidence
    result: JudgeResult


def judge_target(config: JudgeConfig, *, api_key: str | None) -> Target:
    """Whom `ask` asks for judgements."""
    return Target(
        name="the judge",
        base_url=config.base_url,
        model=config.model,
        api_key=api_key,
        requests_per_minute=config.requests_per_minute,
    )


def build_judge_tasks(evidence: TaskEvidence, config: JudgeConfig) -> list[Task]:
    """What the judge is asked: one inspect task, or none where all answers are the same.

    It holds the prompts about every prompt of the baseline, each different one once. Errors: the
    task's metric has to be `rubric` or `pairwise`.
    """
    prompts = _judge_prompts(evidence, config)
    return [build_inspect_task(prompts)] if prompts.questions else []


def apply_judgements(
    evidence: TaskEvidence, judgements: Mapping[str, Sequence[Answer]], config: JudgeConfig
) -> JudgedEvidence:
    """Put the judge's scores in the place of the answers' own.

    judgements: what `ask` returned for the tasks of `build_judge_tasks`. Pairwise, the variant's
    scores are those against the baseline's better prompt, which is the one that the judge prefers
    more often (in a tie the later one); the result, too, speaks of that one.
    """
    prompts = _judge_prompts(evidence, config)
    replies: dict[str, Answer] = {}
    if prompts.questions:
        replies = {reply.id: reply for reply in judgements[log_name(prompts)]}
    if evidence.task.metric == "pairwise":
        return _apply_pairwise(evidence, replies, config)
    return _apply_rubric(evidence, replies, config)


def length_difference(baseline: Sequence[Answer], variant: Sequence[Answer]) -> float:
    """The variant's mean answer length over the baseline's, in characters, minus 1.

    A baseline that says nothing at all counts as one character an answer.
    """
    theirs, ours = (fmean(len(shown_answer(one)) for one in side) for side in (baseline, variant))
    return ours / (theirs or 1.0) - 1.0 if (theirs or ours) else 0.0


def _judge_prompts(evidence: TaskEvidence, config: JudgeConfig) -> EvaluationTask:
    """The judge's task over all of the baseline's prompts."""
    task, variant = evidence.task, evidence.variant
    assert task.metric in ("rubric", "pairwise"), f"{task.metric} needs no judge"
    if task.metric == "rubric":
        answers = [one for side in (*evidence.baseline.values(), variant) for one in side]
        return rubric_prompts(task, answers, config)
    by_prompt = [
        pairwise_prompts(task, side, variant, config) for side in evidence.baseline.values()
    ]
    questions = {question.id: question for one in by_prompt for question in one.questions}
    return replace(by_prompt[0], questions=tuple(questions.values()))


def _apply_pairwise(
    evidence: TaskEvidence, replies: Mapping[str, Answer], config: JudgeConfig
) -> JudgedEvidence:
    readings: dict[str, PairwiseReading] = {
        prompt: read_pairwise(evidence.task, side, evidence.variant, replies)
        for prompt, side in evidence.baseline.items()
    }
    baseline = {prompt: reading.baseline for prompt, reading in readings.items()}
    better = readings[better_prompt(replace(evidence, baseline=baseline))]
    return JudgedEvidence(
        evidence=replace(evidence, baseline=baseline, variant=better.variant),
        result=JudgeResult(
            model=config.model,
            flip_rate=better.flip_rate,
            length_difference=length_difference(better.baseline, better.variant),
            num_unreadable=better.num_unreadable,
        ),
    )


def _apply_rubric(
    evidence: TaskEvidence, replies: Mapping[str, Answer], config: JudgeConfig
) -> JudgedEvidence:
    readings = {
        prompt: read_rubric(evidence.task, side, replies)
        for prompt, side in evidence.baseline.items()
    }
    ours = read_rubric(evidence.task, evidence.variant, replies)
    baseline = {prompt: reading.answers for prompt, reading in readings.items()}
    better = readings[better_prompt(replace(evidence, baseline=baseline))]
    return JudgedEvidence(
        evidence=replace(evidence, baseline=baseline, variant=ours.answers),
        result=JudgeResult(
            model=config.model,
            flip_rate=None,
            length_difference=length_difference(better.answers, ours.answers),
            num_unreadable=better.num_unreadable + ours.num_unreadable,
        ),
    )
