"""A hosted model's answers as one portable file, so that a comparison can be repeated without key
or network, and after the model has been retired.

JSON Lines: a header, then a line an answer. The checksum in the header tells a damaged or edited
file; it is no signature, since whoever edits the file can compute it anew.
"""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit, urlunsplit

from configs.errors import UserError
from configs.evaluation_schema import Price
from configs.run_directory import write_whole
from data.cache import WRITE_ERRORS, disk_error
from evals.asked import Asked
from evals.prompts import build_prompt, name_prompt_of, prompt_sha256, prompt_text
from evals.recording_format import (
    FORMAT,
    VERSION,
    Header,
    RecordedAnswer,
    RecordedTask,
    seal,
    to_json,
)
from evals.recording_match import find_mismatches
from evals.task import Answer, EvaluationTask
from evals.tasks import log_name

if TYPE_CHECKING:  # targets imports the model that answers out of recordings
    from evals.targets import Target

RECORD_AGAIN = "record the hosted side again with `tunery evaluate --record FILE`"


class AskedBetween(NamedTuple):
    """When the first answer was asked for and when the last one came."""

    first: datetime
    last: datetime


def _asked_between(answers: Mapping[str, Sequence[Answer]]) -> AskedBetween:
    told = [one.asked_at for of_task in answers.values() for one in of_task if one.asked_at]
    now = datetime.now(UTC)
    moments = [datetime.fromisoformat(moment) for moment in told] or [now]
    return AskedBetween(min(moments), max(moments))


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that has been read and found whole.

    name, model, host: who answered, as reports and as requests call it, and where; answers: by what
    was asked; sha256: of the whole content, which can stand as a target's revision; price: what the
    host asked for when it was recorded, None where unknown.
    """

    path: Path
    name: str
    model: str
    host: str
    asked: AskedBetween
    price: Price | None
    tasks: tuple[RecordedTask, ...]
    answers: Mapping[Asked, RecordedAnswer]
    sha256: str

    def describe(self) -> str:
        """What it holds, in a sentence for reports."""
        first, last = (f"{moment:%Y-%m-%d}" for moment in self.asked)
        days = first if first == last else f"{first} to {last}"
        return f"{len(self.answers):,} answers of {self.model} at {self.host}, asked {days}"


def write_recording(
    file: Path,
    *,
    target: "Target",
    tasks: Sequence[tuple[EvaluationTask, bool]],
    answers: Mapping[str, Sequence[Answer]],
    price: Price | None = None,
    asked: AskedBetween | None = None,
    with_prompts: bool = False,
) -> None:
    """Write all `answers`, or leave whatever stood at `file`.

    tasks: each with whether worked examples were shown; answers: by `evals.tasks.log_name`, every
    question of every epoch; asked: as the answers tell it when absent, else now; with_prompts:
    write what was asked in full, so that the file explains itself. Without it there are hashes
    instead, by which a prompt is recognised but not read: questions are often nobody else's
    business, and worked examples would stand in every line. The answers themselves can be
    confidential all the same. The address loses user, password and query. The folder is made.
    Errors: `UserError` where it cannot be written.
    """
    first, last = asked or _asked_between(answers)
    lines = [line for one in tasks for line in _answer_lines(*one, answers, with_prompts)]
    header = Header(
        format=FORMAT,
        version=VERSION,
        name=target.name,
        model=target.model,
        host=public_address(target.base_url),
        asked_from=first.astimezone(UTC).isoformat(timespec="seconds"),
        asked_to=last.astimezone(UTC).isoformat(timespec="seconds"),
        versions={name: importlib.metadata.version(name) for name in ("tunery", "inspect-ai")},
        price=price.model_dump() if price else None,
        tasks=[_describe_task(*one) for one in tasks],
        num_answers=len(lines),
        sha256="",
    )
    header["sha256"] = seal(header, lines)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, "".join(f"{line}\n" for line in [to_json(header), *lines]))
    except OSError as error:
        if error.errno in WRITE_ERRORS:
            raise disk_error(error, file) from error
        raise


def open_recording(file: Path) -> Recording:
    """Read a recording and see that it is whole and unchanged. Errors: `UserError`."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot read the recording: {error.strerror}",
            where=file,
            remedy="give the path of a file that `tunery evaluate --record FILE` has written",
        ) from error
    except UnicodeDecodeError:
        raise _no_recording(file, "it is not UTF-8 text") from None
    first, *lines = text.removesuffix("\n").split("\n")
    header = _read_header(first, file)
    if len(lines) != header["num_answers"]:
        raise UserError(
            f"the recording is incomplete: its header tells of {header['num_answers']} answers, "
            f"{len(lines)} are there",
            where=file,
            remedy=f"copy the whole file again, or {RECORD_AGAIN}",
        )
    if seal(header, lines) != header["sha256"]:
        raise UserError(
            "the recording has been changed since it was written: its checksum does not fit",
            where=file,
            remedy=f"take the original file, or {RECORD_AGAIN}",
        )
    return Recording(
        path=file,
        name=header["name"],
        model=header["model"],
        host=header["host"],
        asked=AskedBetween(
            datetime.fromisoformat(header["asked_from"]), datetime.fromisoformat(header["asked_to"])
        ),
        price=Price.model_validate(header["price"]) if header["price"] else None,
        tasks=tuple(header["tasks"]),
        answers=_by_asked(header, lines, file),
        sha256=header["sha256"],
    )


def check_matches(recording: Recording, tasks: Sequence[tuple[EvaluationTask, bool]]) -> None:
    """See that the recording has an answer to every question of `tasks`, asked in the same way.

    tasks: each with whether worked examples are shown. Messages, tools, temperature and max_tokens
    must be the same; more tasks, questions or epochs than are asked do no harm, and metrics may
    differ, because they come after the answers. Errors: `UserError` that counts the questions that
    differ and names the first one and its difference.
    """
    found = [
        mismatch
        for task, with_examples in tasks
        for mismatch in find_mismatches(
            recording.tasks, recording.answers, task=task, with_examples=with_examples
        )
    ]
    if not found:
        return
    num_asked = sum(len(task.questions) for task, _ in tasks)
    num_differing = sum(mismatch.num_questions for mismatch in found)
    raise UserError(
        f"the recording does not fit what is asked: {num_differing:,} of {num_asked:,} questions "
        f"differ; first: task {found[0].task}, {found[0].told}",
        where=recording.path,
        remedy="compare the run's data and settings (evaluation and its tasks) with those of the "
        f"run that was recorded, or {RECORD_AGAIN}",
    )


def public_address(url: str) -> str:
    """A host's address without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _describe_task(task: EvaluationTask, with_examples: bool) -> RecordedTask:
    return RecordedTask(
        task=task.name,
        prompt=name_prompt_of(task, with_examples=with_examples),
        log=log_name(task, with_examples=with_examples),
        metric=task.metric,
        licence=task.licence,
        temperature=task.temperature,
        max_tokens=task.max_tokens,
        num_epochs=task.num_epochs,
        num_questions=len(task.questions),
    )


def _answer_lines(
    task: EvaluationTask,
    with_examples: bool,
    answers: Mapping[str, Sequence[Answer]],
    with_prompts: bool,
) -> Iterator[str]:
    about = _describe_task(task, with_examples)
    by_key = {(answer.id, answer.epoch): answer for answer in answers[about["log"]]}
    for question in task.questions:
        prompt = build_prompt(question, task.examples if with_examples else ())
        sha256 = prompt_sha256(prompt, question.tools)
        for epoch in range(1, task.num_epochs + 1):
            answer = by_key.get((question.id, epoch))
            assert answer is not None, f"{about['log']}: {question.id} has no answer {epoch}"
            line = RecordedAnswer(
                task=about["task"],
                prompt=about["prompt"],
                id=question.id,
                epoch=epoch,
                prompt_sha256=sha256,
                text=answer.text,
                tool_calls=list(answer.tool_calls),
                stop_reason=answer.stop_reason,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                seconds=answer.seconds or None,
            )
            if with_prompts:
                line["prompt_text"] = prompt_text(prompt)
            yield to_json(line)


def _read_header(line: str, file: Path) -> Header:
    try:
        header = json.loads(line)
    except ValueError:
        raise _no_recording(file, "its first line is not JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _no_recording(file, "its first line does not say so")
    version = header.get("version")
    if version != VERSION:
        raise UserError(
            f"the recording is of version {version}; this Tunery reads version {VERSION}",
            where=file,
            remedy=f"update Tunery, or {RECORD_AGAIN}",
        )
    # The checksum vouches for the rest: whoever made it wrote all of this version's fields.
    if not isinstance(header.get("num_answers"), int) or not isinstance(header.get("sha256"), str):
        raise _no_recording(file, "its first line has no number of answers or no checksum")
    return cast("Header", header)


def _no_recording(file: Path, why: str) -> UserError:
    return UserError(
        f"this is no recording: {why}",
        where=file,
        remedy="give a file that `tunery evaluate --record FILE` has written",
    )


def _by_asked(header: Header, lines: Sequence[str], file: Path) -> dict[Asked, RecordedAnswer]:
    logs = {(one["task"], one["prompt"]): one["log"] for one in header["tasks"]}
    answers: dict[Asked, RecordedAnswer] = {}
    for number, line in enumerate(lines, start=2):
        answer = cast("RecordedAnswer", json.loads(line))
        key = Asked(logs[answer["task"], answer["prompt"]], answer["id"], answer["epoch"])
        if key in answers:
            raise UserError(
                f"the recording answers {answer['id']} (task {answer['task']}, epoch "
                f"{answer['epoch']}) twice",
                where=f"{file}, line {number}",
                remedy=RECORD_AGAIN,
            )
        answers[key] = answer
    return answers
