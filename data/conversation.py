"""The one internal form of a training or test row: a conversation."""

from dataclasses import dataclass, field
from typing import Literal, TypedDict

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn, in the form that chat templates and completion interfaces take."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A row on its way from a source to the model.

    messages: at least one assistant turn, which is what training supervises; id: unique within its
    source, and says where the row came from; group: rows that share one stay on the same side of
    the split (a document, a patient, a near-duplicate cluster); side: set where the source itself
    decides, by an official test split or because a cluster is too large to hold out.
    """

    id: str
    messages: tuple[Message, ...]
    group: str = ""
    side: Literal["train", "test", ""] = ""


def question_and_answer(
    question: str,
    answer: str,
    *,
    id: str,
    group: str = "",
    side: Literal["train", "test", ""] = "",
) -> Conversation:
    """A conversation of one user turn and one assistant turn."""
    messages: tuple[Message, ...] = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    )
    return Conversation(id=id, messages=messages, group=group, side=side)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A source row that cannot be used: where it stands, and why."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """All that a source gives: rows in = conversations + rejects + what `dropped` counts.

    num_read: rows read; dropped: rows left out by the source's own documented cleaning rules,
    counted by rule; licence and attribution go into every report.
    """

    conversations: list[Conversation]
    num_read: int
    licence: str
    attribution: str
    rejects: list[Reject] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
