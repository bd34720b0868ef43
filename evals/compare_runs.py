"""Two variants on the questions that both were asked, out of what their evaluations have recorded:
nobody is asked again.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from configs.errors import UserError
from configs.run_directory import RunDirectory
from evals.evidence import TaskEvidence
from evals.load_tasks import load_tasks
from evals.metrics.registry import METRICS, find_metric
from evals.metrics.score import Reply
from evals.prompts import build_prompt, prompt_sha256, prompt_text, turn_text
from evals.recording import Recording, open_recording
from evals.recording_format import RecordedAnswer
from evals.results import ZERO_SHOT, NotAsked
from evals.task import Answer, EvaluationTask, Question

logger = logging.getLogger(__name__)

VARIANT_RECORDING = Path("evals", "recordings", "variant.jsonl")
MIN_QUESTIONS = 2


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """evidence: A as baseline, B as variant; not_compared: B's tasks without it, and why;
    left_out: of each task in part compared, how many questions of each run are not.
    """

    evidence: list[TaskEvidence]
    not_compared: list[NotAsked]
    left_out: list[str]


class _Parameters(NamedTuple):
    temperature: float
    max_tokens: int
    num_epochs: int


class _Key(NamedTuple):
    """By what answers are paired: what was sent, how, and which time."""

    sha256: str
    parameters: _Parameters
    epoch: int


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A run's recorded answers, and the prompts that its own training rows give away."""

    name: str
    recording: Recording
    answers: Mapping[_Key, RecordedAnswer]
    known: frozenset[str]
    tasks: Sequence[EvaluationTask]


def gather_two_runs(run_a: RunDirectory, run_b: RunDirectory) -> TwoRuns:
    """Pair the answers of both runs' variants to the same prompts with the same parameters.

    Tasks, references, metrics and roles are those of `run_b`; scores are computed anew from the
    recorded texts. A question that the training rows of either run give away counts as known.
    Errors: `UserError` where a run has no recording, both are the same one, or fewer than two
    questions of a primary task are common to both.
    """
    if run_a.path.resolve() == run_b.path.resolve():
        raise UserError("a run cannot be compared with itself", where=run_a.path)
    a, b = _open_side(run_a), _open_side(run_b)
    evidence: list[TaskEvidence] = []
    not_compared: list[NotAsked] = []
    left_out: list[str] = []
    for task in b.tasks:
        common = [one for one in task.questions if _has_answers((a, b), task, one)]
        problem = _problem(task, common, a, b)
        if problem and task.role == "primary":
            raise _incomparable(task, problem, (run_a, run_b))
        if problem:
            not_compared.append(NotAsked(name=task.name, why=problem))
            continue
        left_out += _tell_left_out(task, common, a, b)
        evidence.append(_pair(task, common, a, b))
    for told in left_out:
        logger.warning("%s", told)
    return TwoRuns(evidence=evidence, not_compared=not_compared, left_out=left_out)


def _incomparable(
    task: EvaluationTask, problem: str, runs: tuple[RunDirectory, RunDirectory]
) -> UserError:
    return UserError(
        f"the two runs cannot be compared on {task.name!r}: {problem}",
        where=", ".join(str(run.path) for run in runs),
        remedy="evaluate both runs on the same test rows with the same settings "
        "(evaluation.temperature, max_tokens, num_epochs, data.system_prompt)",
    )


def _open_side(run: RunDirectory) -> _Side:
    file = run.path / VARIANT_RECORDING
    if not file.is_file():
        raise UserError(
            "this run has no recorded answers of its variant",
            where=file,
            remedy=f"run `tunery evaluate {run.config_file}` first",
        )
    config = run.load_config()
    recording = open_recording(file)
    tasks = load_tasks(config, run.path / "data")
    known = {_sha256(one) for task in tasks for one in task.questions if one.is_known}
    return _Side(
        name=config.name,
        recording=recording,
        answers=_by_key(recording),
        known=frozenset(known),
        tasks=tasks,
    )


def _by_key(recording: Recording) -> dict[_Key, RecordedAnswer]:
    """Answers to prompts without worked examples, which is how variants are asked."""
    parameters = {
        one["task"]: _Parameters(one["temperature"], one["max_tokens"], one["num_epochs"])
        for one in recording.tasks
        if one["prompt"] == ZERO_SHOT
    }
    return {
        _Key(answer["prompt_sha256"], parameters[answer["task"]], answer["epoch"]): answer
        for answer in recording.answers.values()
        if answer["prompt"] == ZERO_SHOT
    }


def _sha256(question: Question) -> str:
    return prompt_sha256(build_prompt(question), question.tools)


def _keys(task: EvaluationTask, question: Question) -> list[_Key]:
    """One for each epoch."""
    sha256 = _sha256(question)
    parameters = _Parameters(task.temperature, task.max_tokens, task.num_epochs)
    return [_Key(sha256, parameters, epoch) for epoch in range(1, task.num_epochs + 1)]


def _has_answers(sides: Sequence[_Side], task: EvaluationTask, question: Question) -> bool:
    return all(key in side.answers for side in sides for key in _keys(task, question))


def _problem(task: EvaluationTask, common: Sequence[Question], a: _Side, b: _Side) -> str | None:
    if METRICS[task.metric].is_judged:
        return f"metric {task.metric} needs a judge's eye on both, and a comparison asks nobody"
    if len(common) >= MIN_QUESTIONS:
        return None
    hashes = {_sha256(question) for question in task.questions}
    other = [
        side.name
        for side in (a, b)
        if sum(sha256 in hashes for sha256 in {key.sha256 for key in side.answers}) >= MIN_QUESTIONS
    ]
    if len(other) == len((a, b)):
        return f"{a.name} and {b.name} were asked with other parameters, or one has since changed"
    return (
        f"of its {len(task.questions)} questions {len(common)} were asked of both {a.name} and "
        f"{b.name}, in the same words"
    )


def _tell_left_out(
    task: EvaluationTask, common: Sequence[Question], a: _Side, b: _Side
) -> list[str]:
    """A sentence where questions of either run have no counterpart in the other."""
    num_b = len(task.questions) - len(common)
    in_common = {_sha256(question) for question in common}
    # The other run may call the task something else.
    names = {one["task"] for one in a.answers.values() if one["prompt_sha256"] in in_common}
    theirs = {one["prompt_sha256"] for one in a.answers.values() if one["task"] in names}
    num_a = len(theirs - in_common)
    if not (num_a or num_b):
        return []
    return [
        f"{task.name}: {len(common)} questions are compared; left out are {num_a} of {a.name} and "
        f"{num_b} of {b.name}, which the other was not asked in the same way"
    ]


def _pair(task: EvaluationTask, common: Sequence[Question], a: _Side, b: _Side) -> TaskEvidence:
    known = a.known | b.known
    questions = tuple(replace(one, is_known=_sha256(one) in known) for one in common)
    compared = replace(task, questions=questions, examples=())
    return TaskEvidence(
        task=compared,
        baseline_name=a.name,
        baseline_model=a.recording.model,
        baseline={ZERO_SHOT: _score(compared, a)},
        variant=_score(compared, b),
    )


def _score(task: EvaluationTask, side: _Side) -> list[Answer]:
    return [
        _score_answer(task, question, side.answers[key])
        for question in task.questions
        for key in _keys(task, question)
    ]


def _score_answer(task: EvaluationTask, question: Question, recorded: RecordedAnswer) -> Answer:
    calls = tuple(recorded["tool_calls"])
    score = find_metric(task.metric)(Reply(text=recorded["text"], tool_calls=calls), question)
    return Answer(
        id=question.id,
        epoch=recorded["epoch"],
        question=prompt_text(build_prompt(question)),
        reference=turn_text(question.reference),
        text=recorded["text"],
        tool_calls=calls,
        score=score.value,
        label=score.label,
        stop_reason=recorded["stop_reason"],
        prompt_tokens=recorded["prompt_tokens"],
        completion_tokens=recorded["completion_tokens"],
        seconds=recorded["seconds"],
    )
