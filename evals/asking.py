"""Asks a target all questions of its tasks, going on where an earlier attempt stopped."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from inspect_ai import Task
from inspect_ai import eval as run_tasks
from inspect_ai.hooks import Hooks, SampleEnd, hooks
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import Model

from configs.errors import UserError
from evals.chat_api import NOT_ASKED, ChatAPI
from evals.containment import contained
from evals.kept_answers import open_answers
from evals.read_answers import read_answers
from evals.targets import Target, build_model
from evals.task import Answer

Progress = Callable[[int, int], None]
# About a minute of waiting for a host that names no Retry-After.
MAX_RETRIES = 10
MAX_ERROR_CHARACTERS = 300
# Questions that stand ready, so that a connection is used again while answers are judged.
NUM_READY = 32
# inspect's logs are for people: kept answers outlive a kill by themselves.
SAMPLES_PER_WRITE = 100


def ask(
    target: Target,
    tasks: Sequence[Task],
    *,
    log_dir: Path,
    max_connections: int,
    max_retries: int = MAX_RETRIES,
    progress: Progress | None = None,
) -> dict[str, list[Answer]]:
    """The target's answers by task's name, in the order of questions, then epochs.

    Each answer is kept in `log_dir` when it arrives (see `evals.kept_answers`): the same call after
    a kill, or one with more questions, epochs, tasks or another metric, asks only what has no
    answer there. At most `max_connections` requests are in flight over all tasks together. The logs
    of inspect in `log_dir` are those of this call. progress: called with answers so far, and all.

    Errors: `UserError` where a question could not be answered, after all others have been, or at
    once where the host cannot answer any: wrong key or model, no retries left, many refusals in a
    row. Answers until then are kept.
    """
    names = [task.name for task in tasks]
    assert len(set(names)) == len(names), f"two tasks of one name in {names}"
    if not tasks:
        return {}
    log_dir = log_dir.resolve()
    with open_answers(log_dir) as kept, contained(log_dir):
        model = build_model(target, max_retries=max_retries)
        api = model.api
        if isinstance(api, ChatAPI):
            api.keep_in(kept, source=target.revision or target.base_url)
        for old in log_dir.glob("*.eval"):
            old.unlink()
        samples = _Samples(sum(map(_num_answers, tasks)), progress)
        with samples.collected(), _seldom_swept():
            logs = _run(target, tasks, model, log_dir=log_dir, max_connections=max_connections)
    failure = str(api.host.failure or "") if isinstance(api, ChatAPI) else ""
    if failure or samples.errors or any(log.status != "success" for log in logs):
        raise _unanswered(target, logs, samples, failure)
    by_name = {log.eval.task: samples.by_eval[log.eval.eval_id] for log in logs}
    return {task.name: read_answers(task, by_name[task.name]) for task in tasks}


def _run(
    target: Target, tasks: Sequence[Task], model: Model, *, log_dir: Path, max_connections: int
) -> list[EvalLog]:
    logs = run_tasks(
        list(tasks),
        model=model,
        metadata={"target": target.name, "revision": target.revision},
        log_dir=str(log_dir),
        log_format="eval",
        log_buffer=SAMPLES_PER_WRITE,
        log_realtime=False,
        log_images=True,
        log_header_only=True,
        max_tasks=len(tasks),
        max_samples=max_connections + NUM_READY,
        max_connections=max_connections,
        # The host's class retries; a question that failed for good does not stop the others.
        max_retries=0,
        fail_on_error=False,
        ctl_server=False,
        # "none" would silence rich for the rest of the process.
        display="log",
        score_display=False,
        log_level="warning",
    )
    # inspect ends quietly when it is interrupted, at times without a log.
    if len(logs) < len(tasks) or any(log.status == "cancelled" for log in logs):
        raise KeyboardInterrupt
    return logs


@dataclass
class _Samples:
    """What inspect has asked and judged, as it comes: reading its log again would take longer."""

    num_all: int
    progress: Progress | None
    by_eval: dict[str, list[EvalSample]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    num_answered: int = 0

    def add(self, eval_id: str, sample: EvalSample) -> None:
        """Note an answer, or by the question's id why there is none."""
        if sample.error is not None:
            self.errors[str(sample.id)] = sample.error.message
            return
        if NOT_ASKED in (sample.output.metadata or {}):
            return
        self.by_eval.setdefault(eval_id, []).append(sample)
        self.num_answered += 1
        self._tell()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Samples that inspect ends while the block runs are added."""
        self._tell()
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.num_answered, self.num_all)


_collecting: ContextVar[_Samples | None] = ContextVar("_collecting", default=None)


@hooks(name="tunery_samples", description="Hands each judged answer to who asked for it.")
class _SampleHooks(Hooks):
    """The one instance that inspect keeps; who asked stands in the caller's context."""

    def enabled(self) -> bool:
        return _collecting.get() is not None

    async def on_sample_end(self, data: SampleEnd) -> None:
        samples = _collecting.get()
        if samples is not None:
            samples.add(data.eval_id, data.sample)


@contextmanager
def _seldom_swept() -> Iterator[None]:
    """Garbage is looked for less often: otherwise a sixth of the time goes into it."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _num_answers(task: Task) -> int:
    return len(task.dataset) * (task.epochs or 1)


def _unanswered(
    target: Target, logs: Sequence[EvalLog], samples: _Samples, failure: str
) -> UserError:
    errors = samples.errors
    stopped = [log.error.message for log in logs if log.error is not None]
    first = failure or next(iter([*errors.values(), *stopped]), "the run was stopped")
    # inspect puts the exception's name before some words and the request before others.
    message = first.strip().splitlines()[-1].strip()[:MAX_ERROR_CHARACTERS]
    if target.api_key:
        message = message.replace(target.api_key, "[key]")
    if failure:
        what = f"did not answer: {message}"
        remedy = "see that the address answers and knows the model, then run the same command "
        remedy += f"again: the {samples.num_answered} answers so far are kept"
    else:
        num = f"{len(errors)} questions" if len(errors) > 1 else "1 question"
        what = f"did not answer {num} (first: {next(iter(errors), '?')}): {message}"
        remedy = "mend or remove what it refuses, then run the same command again: the "
        remedy += f"{samples.num_answered} other answers are kept"
    return UserError(
        f"{target.name} (model {target.model}) {what}",
        where=str(target.recording or target.base_url),
        remedy=remedy,
    )
