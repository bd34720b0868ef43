"""What a guard set is, and how its questions are written down: the same for all of them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from configs.evaluation_schema import MetricName
from data.conversation import Message, ToolDefinition
from evals.task import Question

FOLDER = Path(__file__).parent / "questions"
OWN_LICENCE = "Apache-2.0 (Tunery's own)"
OWN_ATTRIBUTION = "written for Tunery"


@dataclass(frozen=True, kw_only=True)
class GuardSet:
    """title: the task's name; description: one sentence for reports; load: all its questions.

    source: where the questions come from; min_tokens: the room that its answers need, whatever
    shorter limit the configuration sets.
    """

    title: str
    description: str
    metric: MetricName
    load: Callable[[], Sequence[Question]]
    source: str = "Tunery"
    licence: str = OWN_LICENCE
    attribution: str = OWN_ATTRIBUTION
    min_tokens: int = 1


def build_question(
    id: str,
    prompt: str,
    reference: str | Message,
    *,
    cluster: str = "",
    check: Mapping[str, Any] | None = None,
    tools: Sequence[ToolDefinition] = (),
) -> Question:
    """A question of one user turn; it is its own cluster where none is named."""
    if isinstance(reference, str):
        reference = {"role": "assistant", "content": reference}
    return Question(
        id=id,
        messages=({"role": "user", "content": prompt},),
        reference=reference,
        cluster=cluster or id,
        check=check or {},
        tools=tuple(tools),
    )


def read_questions(file: str) -> list[Question]:
    """The questions of a file beside this module, in JSON Lines.

    A line holds id, prompt, reference (an answer that passes), checks (`evals.metrics.checks`), and
    cluster where it resembles others.
    """
    return [
        build_question(
            row["id"],
            row["prompt"],
            row["reference"],
            cluster=row.get("cluster", ""),
            check={"checks": row["checks"]},
        )
        for row in map(orjson.loads, (FOLDER / file).read_bytes().splitlines())
    ]


def place(*names: object) -> int:
    """A number that depends on the names alone, for orders that look random and never change."""
    text = "\n".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
