"""The one internal form of a training or test row: a conversation."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, TypedDict

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
Side = Literal["train", "validation", "test"]
FixedSide = Literal["train", "validation", "test", ""]
ToolDefinition = dict[str, Any]


class TextPart(TypedDict):
    """A piece of text between images."""

    type: Literal["text"]
    text: str


class ImageAddress(TypedDict):
    """Where an image is: a `data:` URL."""

    url: str


class ImagePart(TypedDict):
    """An image within a user's turn."""

    type: Literal["image_url"]
    image_url: ImageAddress


ContentPart = TextPart | ImagePart


class FunctionCall(TypedDict):
    """Which function, and with what; arguments: JSON text of an object."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """One call that an assistant's turn makes."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict):
    """One turn, in the form that chat templates and completion interfaces take.

    content is a text, or a list of parts where a user's turn holds images; it may be empty where
    an assistant only calls tools. tool_calls stand on an assistant's turn; tool_call_id says which
    call a tool's turn answers.
    """

    role: Role
    content: str | list[ContentPart]
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A row on its way from a source to the model.

    messages: at least one assistant turn, which is what training supervises; tools: definitions in
    OpenAI's form; rejected: the last turn that was not preferred, where the row is a preference
    pair; id: the row's name; where: the file and line, or the row number, that it was read from,
    which is its id where it brings none; group: rows that share one stay on the same side of the
    split (a document, a patient); side: set where the source itself decides, by an official split.
    """

    id: str
    where: str = ""
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    rejected: Message | None = None
    group: str = ""
    side: FixedSide = ""


def text_of(message: Message) -> str:
    """All text of a turn; images leave nothing."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def question_and_answer(
    question: str, answer: str, *, id: str, group: str = "", side: FixedSide = ""
) -> Conversation:
    """A conversation of one user turn and one assistant turn."""
    messages: tuple[Message, ...] = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    )
    return Conversation(id=id, messages=messages, group=group, side=side)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A source row that cannot be used: where it stands (file and line, or row), and why."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """What one chunk of a source gives: rows in = conversations + rejects + what `dropped` counts.

    dropped: rows left out by the source's own documented cleaning rules, counted by rule.
    """

    conversations: list[Conversation]
    num_read: int
    rejects: list[Reject] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class Source(Protocol):
    """Rows in chunks: `chunks` is cheap and runs in one process, `read` runs in any of several.

    A source and its chunks can be pickled.
    """

    @property
    def licence(self) -> str:
        """Licence of the data, for every report."""
        ...

    @property
    def attribution(self) -> str:
        """Whom to credit."""
        ...

    @property
    def told(self) -> str:
        """How rows were understood (a detected format and shape), in a sentence or not at all."""
        ...

    def chunks(self) -> Iterator[object]:
        """Parts of the source, each a few thousand rows; the same ones at every call."""
        ...

    def read(self, chunk: Any) -> ReadRows:  # noqa: ANN401 (each source has its own)
        """The rows of a chunk. Errors: `UserError` where the whole source cannot be used."""
        ...
