"""Asks a target all questions of a task, going on where a killed attempt stopped."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from inspect_ai import Task, eval_set
from inspect_ai.event import ModelEvent
from inspect_ai.hooks import Hooks, SampleEnd, hooks
from inspect_ai.log import (
    EvalLog,
    EvalSample,
    list_eval_logs,
    read_eval_log,
    read_eval_log_sample_summaries,
)
from inspect_ai.model import Model, ModelUsage
from inspect_ai.scorer import CORRECT

from configs.errors import UserError
from evals.containment import contained
from evals.targets import Target, build_model

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
# About a minute of waiting for a host that names no Retry-After.
MAX_RETRIES = 10
MAX_ERROR_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a target answered to one question.

    question: all turns that were sent, as inspect logged them; reference: the expected answer;
    prompt_tokens, completion_tokens and seconds (of the request that succeeded): None where the
    host or the log does not say.
    """

    id: str
    question: str
    reference: str
    answer: str
    correct: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None


def ask(
    target: Target,
    task: Task,
    *,
    log_dir: Path,
    max_connections: int,
    max_retries: int = MAX_RETRIES,
    progress: Progress | None = None,
) -> list[Answer]:
    """The target's answers in the order of the task's samples.

    Every answer is in `log_dir` before the next question takes its place, so that after a kill the
    same call asks exactly what has no answer there. Answers are taken up again only where the
    questions, the model's name and the target's revision are unchanged. progress: called with the
    number of answers in the log and their total. Errors: `UserError` with the first failure where
    a question could not be answered; the answers until then are kept.
    """
    task = _copy_for(task, target)
    log_dir = log_dir.resolve()
    log_dir.mkdir(parents=True, exist_ok=True)
    with contained(log_dir):
        model = build_model(target, max_retries=max_retries)
        num_kept = _count_kept_answers(log_dir, task)
        with _reporting(progress, num_kept=num_kept, num_samples=len(task.dataset)):
            log = _run(task, model, log_dir=log_dir, max_connections=max_connections)
    if log.status != "success" or _first_error(log) is not None:
        raise _unanswered(target, log)
    return [_read_answer(sample) for sample in _in_task_order(task, log.samples or [])]


def _run(task: Task, model: Model, *, log_dir: Path, max_connections: int) -> EvalLog:
    """One eval set of one task; the log holds all answers, also those of earlier attempts."""
    _, logs = eval_set(
        task,
        log_dir=str(log_dir),
        model=model,
        # The client retries; a sample that failed for good fails the run at once.
        max_retries=0,
        retry_attempts=1,
        retry_immediate=False,
        max_connections=max_connections,
        # Each answer reaches the log by itself, and the log is the only copy.
        log_buffer=1,
        log_realtime=False,
        log_format="eval",
        # Logs of earlier questions or revisions may stay; they are not read.
        log_dir_allow_dirty=True,
        ctl_server=False,
        # "none" would silence rich for the rest of the process.
        display="log",
        score_display=False,
        log_level="warning",
    )
    return read_eval_log(logs[0].location)


_report: ContextVar[Callable[[], None] | None] = ContextVar("_report", default=None)


@hooks(name="tunery_progress", description="Reports each answer that has reached the log.")
class _ProgressHooks(Hooks):
    """The one instance that inspect keeps; what to call stands in the caller's context."""

    def enabled(self) -> bool:
        return _report.get() is not None

    async def on_sample_end(self, data: SampleEnd) -> None:
        report = _report.get()
        if report is not None and data.sample.error is None:
            report()


@contextmanager
def _reporting(progress: Progress | None, *, num_kept: int, num_samples: int) -> Iterator[None]:
    num_done = num_kept

    def report() -> None:
        nonlocal num_done
        num_done += 1
        if progress is not None:
            progress(num_done, num_samples)

    if progress is not None:
        progress(num_kept, num_samples)
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def _copy_for(task: Task, target: Target) -> Task:
    """The task with the target's revision in its version, by which inspect tells runs apart."""
    own = copy.copy(task)
    own.version = f"{task.version}-{target.revision}" if target.revision else task.version
    return own


def _count_kept_answers(log_dir: Path, task: Task) -> int:
    """Answers to this very task in the newest log of `log_dir`; only progress depends on it."""
    for info in list_eval_logs(str(log_dir), descending=True):
        header = read_eval_log(info, header_only=True).eval
        if (header.task, header.task_version) == (task.name, task.version):
            summaries = read_eval_log_sample_summaries(info)
            return sum(summary.error is None for summary in summaries)
    return 0


def _in_task_order(task: Task, samples: Sequence[EvalSample]) -> list[EvalSample]:
    by_id = {sample.id: sample for sample in samples}
    missing = [sample.id for sample in task.dataset if sample.id not in by_id]
    assert not missing, f"the log says success, but has no answer to {missing[:3]}"
    return [by_id[sample.id] for sample in task.dataset if sample.id is not None]


def _read_answer(sample: EvalSample) -> Answer:
    usage = sample.output.usage
    (score,) = (sample.scores or {}).values()
    return Answer(
        id=str(sample.id),
        question=_question_text(sample),
        reference=sample.target if isinstance(sample.target, str) else sample.target[0],
        answer=sample.output.completion,
        correct=score.value == CORRECT,
        prompt_tokens=_prompt_tokens(usage) if usage else None,
        completion_tokens=usage.output_tokens if usage else None,
        seconds=sample.output.time,
    )


def _prompt_tokens(usage: ModelUsage) -> int:
    """All tokens of the prompt; inspect keeps those that came from the host's cache apart."""
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return usage.input_tokens + cached


def _question_text(sample: EvalSample) -> str:
    """The turns that were sent; the role stands before each where there is more than one."""
    if isinstance(sample.input, str):
        return sample.input
    if len(sample.input) == 1:
        return sample.input[0].text
    return "\n\n".join(f"{message.role}: {message.text}" for message in sample.input)


def _first_error(log: EvalLog) -> str | None:
    failed = [sample for sample in log.samples or [] if sample.error is not None]
    # A failed request's own words come first: the errors around it say that it was retried.
    for event in (event for sample in failed for event in sample.events):
        if isinstance(event, ModelEvent) and event.error:
            return event.error
    if log.error is not None:
        return log.error.message
    return next((sample.error.message for sample in failed if sample.error is not None), None)


def _unanswered(target: Target, log: EvalLog) -> UserError:
    text = (_first_error(log) or f"the run ended as {log.status}").strip()
    # inspect puts the request before the host's words, which come last.
    message = text.splitlines()[-1].strip()[:MAX_ERROR_CHARACTERS]
    if target.api_key:
        message = message.replace(target.api_key, "[key]")
    num_answered = sum(sample.error is None for sample in log.samples or [])
    return UserError(
        f"{target.name} (model {target.model}) did not answer: {message}",
        where=target.base_url,
        remedy="see that the address answers and knows the model, then run the same command again: "
        f"the {num_answered} answers so far are kept",
    )
