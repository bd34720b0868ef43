"""Rows, configurations and hosts that the evaluation's tests share."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import RunConfig
from data.conversation import Conversation, question_and_answer
from evals.asking import ask
from evals.targets import Target
from evals.task import Answer, EvaluationTask, Question
from evals.tasks import build_inspect_task
from tests.evals.loopback_host import LoopbackHost

CHAPTERS = ("Circulatory", "Digestive", "Nervous", "Respiratory", "Skin")

SCHEMA = pa.schema([("id", pa.string()), ("messages", pa.string())])

BuildConfig = Callable[..., RunConfig]


def write_rows(file: Path, rows: Sequence[Conversation]) -> Path:
    records = [{"id": row.id, "messages": json.dumps(row.messages)} for row in rows]
    pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), file)
    return file


def chapter_rows(start: int, count: int) -> list[Conversation]:
    """Questions whose answer can be computed from their number."""
    return [
        question_and_answer(
            f"Diagnosis: term {n}. Which chapter?", CHAPTERS[n % len(CHAPTERS)], id=f"icd/{n}"
        )
        for n in range(start, start + count)
    ]


def chapter_task(start: int, count: int, **changes: object) -> EvaluationTask:
    """The same as questions of a task."""
    questions = tuple(
        Question(id=row.id, messages=row.messages[:1], reference=row.messages[1], cluster=row.id)
        for row in chapter_rows(start, count)
    )
    plain = EvaluationTask(
        name="chapters",
        role="primary",
        metric="normalized_match",
        questions=questions,
        max_tokens=8,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def term_number(question: str) -> int:
    return int(question.split("term ")[1].split(".")[0])


def reply(model: str, messages: list[dict[str, str]]) -> str:
    """`base` talks around the answer unless shown examples; `variant` knows most of them."""
    n = term_number(messages[-1]["content"])
    right = CHAPTERS[n % len(CHAPTERS)]
    if model == "variant":
        return f" {right.upper()}.\n" if n % 10 else "Unknown"
    if len(messages) > 1:
        return right if n % 4 == 0 else "Respiratory <b>system</b>"
    return f"It belongs to the {right} chapter."


def ask_one(
    host: LoopbackHost, task: EvaluationTask, folder: Path, *, at_once: int = 4, retries: int = 3
) -> list[Answer]:
    """A host's answers to one task, kept in `folder`."""
    target = Target("mine", host.base_url, "variant", revision="aaaa")
    answers = ask(
        target,
        [build_inspect_task(task)],
        log_dir=folder,
        max_connections=at_once,
        max_retries=retries,
    )
    return answers[task.name]


@pytest.fixture
def build_config() -> BuildConfig:
    def build(**evaluation: object) -> RunConfig:
        return RunConfig.model_validate(
            {
                "name": "icd",
                "description": "Chapters of diagnoses.",
                "model": {
                    "name": "tiny",
                    "licence": "Apache-2.0",
                    "source": {"kind": "folder", "path": "/nowhere"},
                },
                "data": {"source": {"kind": "icd10_chapters"}},
                "train": {"num_steps": 1},
                "evaluation": {"task": "diagnosis to chapter", "num_samples": 40, **evaluation},
            }
        )

    return build
