"""Whether a recording holds what is about to be asked, known before anything is asked."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from data.conversation import Message
from evals.asked import Asked
from evals.prompts import build_prompt, name_prompt_of, prompt_sha256, prompt_text
from evals.recording_format import RecordedAnswer, RecordedTask
from evals.task import EvaluationTask
from evals.tasks import log_name

MAX_TOLD_CHARACTERS = 120


class Mismatch(NamedTuple):
    """Something that is asked and was not recorded like that, of one task with one prompt."""

    task: str
    told: str
    num_questions: int = 1


def find_mismatches(
    recorded_tasks: Sequence[RecordedTask],
    recorded: Mapping[Asked, RecordedAnswer],
    *,
    task: EvaluationTask,
    with_examples: bool,
) -> Iterator[Mismatch]:
    """What keeps recorded answers from standing for those to `task`; nothing where they can."""
    prompt = name_prompt_of(task, with_examples=with_examples)
    name = f"{task.name} ({prompt})"
    held = {(one["task"], one["prompt"]): one for one in recorded_tasks}
    about = held.get((task.name, prompt))
    if about is None:
        names = ", ".join(f"{one} ({its_prompt})" for one, its_prompt in held)
        told = f"which was not recorded; recorded are: {names}"
        yield Mismatch(name, told, len(task.questions))
        return
    told = "; ".join(_compare_parameters(about, task))
    if told:
        yield Mismatch(name, told, len(task.questions))
        return
    log = log_name(task, with_examples=with_examples)
    for question in task.questions:
        sent = build_prompt(question, task.examples if with_examples else ())
        sha256 = prompt_sha256(sent, question.tools)
        epochs = range(1, task.num_epochs + 1)
        answers = [recorded.get(Asked(log, question.id, epoch)) for epoch in epochs]
        problem = _compare_answers(answers, sent, sha256)
        if problem:
            yield Mismatch(name, f"question {question.id}: {problem}")


def _compare_parameters(recorded: RecordedTask, task: EvaluationTask) -> Iterator[str]:
    if recorded["temperature"] != task.temperature:
        yield f"temperature is {task.temperature:g}, recorded with {recorded['temperature']:g}"
    if recorded["max_tokens"] != task.max_tokens:
        yield f"max_tokens is {task.max_tokens}, recorded with {recorded['max_tokens']}"
    if recorded["num_epochs"] < task.num_epochs:
        yield f"num_epochs is {task.num_epochs}, recorded are {recorded['num_epochs']}"


def _compare_answers(
    answers: Sequence[RecordedAnswer | None], sent: Sequence[Message], sha256: str
) -> str | None:
    for answer in answers:
        if answer is None:
            return "it has no recorded answer"
        if answer["prompt_sha256"] != sha256:
            return f"another prompt was recorded{_tell_difference(answer, prompt_text(sent))}"
    return None


def _tell_difference(answer: RecordedAnswer, sent: str) -> str:
    """The first line that differs, where the recording was made with prompts."""
    recorded = answer.get("prompt_text")
    if recorded is None:
        return ""
    lines = difflib.ndiff(recorded.splitlines(), sent.splitlines())
    first = next((line for line in lines if line[:2] in ("- ", "+ ")), None)
    if first is None:
        return " (its text is the same: tools or images differ)"
    whose = "recorded" if first.startswith("- ") else "asked now"
    return f" (only {whose}: {first[2 : 2 + MAX_TOLD_CHARACTERS]!r})"
