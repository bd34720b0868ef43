"""What is asked and how it is judged, before anything is asked: the evaluation's own nouns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from configs.evaluation_schema import MetricName, Role
from data.conversation import Conversation, Message, ToolCall, ToolDefinition


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of a task.

    id: unique within the task; messages: everything that is asked; reference: the expected turn of
    the assistant; cluster: questions that share one are not independent (a document, a family of
    near duplicates), its own id where it stands alone; is_known: whether the rows to train on give
    it away; check: what the metric needs beside the reference (checks, a JSON schema).
    """

    id: str
    messages: tuple[Message, ...]
    reference: Message
    cluster: str
    tools: tuple[ToolDefinition, ...] = ()
    is_known: bool = False
    check: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """Questions with one metric.

    name: unique in an evaluation; examples: worked ones of the baseline's second prompt, none where
    it has only the first; rubric: for the judge; licence and attribution: of the rows, for reports.
    """

    name: str
    role: Role
    metric: MetricName
    questions: tuple[Question, ...]
    examples: tuple[Conversation, ...] = ()
    max_tokens: int
    temperature: float = 0.0
    num_epochs: int = 1
    rubric: str = ""
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a target answered to one question in one epoch.

    epoch: from 1; question: all turns that were sent, as inspect logged them, as text; reference:
    the expected answer as text; text and tool_calls: the answer; score: from 0 to 1; label: what
    the metric understood the answer to be; stop_reason: inspect's word for how it ended;
    prompt_tokens, completion_tokens and seconds (of the request that succeeded): None where the
    host or the log does not say; asked_at: ISO 8601, None where it was not asked by this program.
    """

    id: str
    epoch: int
    question: str
    reference: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    score: float
    label: str
    stop_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    asked_at: str | None = None

    @property
    def said(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Text, and name and arguments of each call, whose id is made up anew each time."""
        calls = (call["function"] for call in self.tool_calls)
        return self.text, tuple((call["name"], call["arguments"]) for call in calls)
