"""Votes of people who saw two answers and not whose they were: the form of one, and its file.

The workbench keeps them; training takes them as preference pairs, and the evaluation counts them.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import orjson
from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from configs.errors import UserError
from configs.section import Section
from data.conversation import ROLES

VOTES_FILE = Path("serve", "votes.jsonl")
"""Where a run directory keeps its votes."""
READ_BYTES = 1 << 16
# Model interfaces also call a system turn so.
DEVELOPER = "developer"

Choice = Literal["a", "b", "tie", "both_bad"]
JsonObject = dict[str, JsonValue]


def _is_absent(value: object) -> bool:
    return value is None


class AnswerMessage(Section):
    """An answer as the interface gave it."""

    role: Literal["assistant"]
    """Whose turn it is."""
    content: str | None = None
    """The text; null where the answer only calls tools."""
    tool_calls: list[JsonObject] | None = Field(default=None, exclude_if=_is_absent)
    """Calls in OpenAI's form."""


class VotedAnswer(Section):
    """One of the two answers."""

    model: str = Field(min_length=1)
    """Name that was asked for."""
    target: str | None = None
    """Who answered, where the interface tells it."""
    message: AnswerMessage
    """What was answered."""


class PostedVote(Section):
    """A vote as it is cast."""

    messages: list[JsonObject] = Field(min_length=1)
    """The turns that both were asked, in OpenAI's form."""
    tools: list[JsonObject] | None = Field(default=None, exclude_if=_is_absent)
    """Tools that both were offered."""
    parameters: JsonObject = Field(default={})
    """Further fields of the request."""
    a: VotedAnswer
    """One answer."""
    b: VotedAnswer
    """The other one."""
    choice: Choice
    """Which one was found better."""
    shown_first: Literal["a", "b"]
    """Which one stood first (on the left)."""

    @field_validator("messages")
    @classmethod
    def _check_roles(cls, messages: list[JsonObject]) -> list[JsonObject]:
        known = (*ROLES, DEVELOPER)
        for number, message in enumerate(messages, start=1):
            if message.get("role") not in known:
                raise ValueError(f"the role of message {number} is none of {', '.join(known)}")
        return messages

    @model_validator(mode="after")
    def _check_writable(self) -> Self:
        """A JSON text can hold halves of characters, and be nested deeper, than one can write."""
        try:
            orjson.dumps(self.model_dump())
        except TypeError as error:
            raise ValueError(f"the vote cannot be written as JSON: {error}") from None
        return self

    @property
    def chosen(self) -> VotedAnswer | None:
        """The answer that was found better, where one was."""
        return {"a": self.a, "b": self.b}.get(self.choice)

    @property
    def other(self) -> VotedAnswer | None:
        """The answer that was found worse, where one was."""
        return {"a": self.b, "b": self.a}.get(self.choice)

    @property
    def prompt_sha256(self) -> str:
        """What votes on the same turns share."""
        return json_sha256(self.messages)


class Vote(PostedVote):
    """A vote as it is kept."""

    id: str = Field(min_length=1)
    """Tells it from all others."""
    time: AwareDatetime
    """When it was cast."""
    client: str
    """Whose key it came with, as the server's log names clients."""

    @classmethod
    def of(cls, posted: PostedVote, *, client: str) -> Self:
        """The vote as it is kept from now on, under a new id."""
        fields = {name: getattr(posted, name) for name in PostedVote.model_fields}
        return cls(**fields, id=uuid.uuid4().hex, time=datetime.now(UTC), client=client)


@dataclass(frozen=True, kw_only=True)
class VoteCount:
    """Votes on one pair of models, which are sorted by name; a and b as the votes' own.

    Of a model against itself, a and b are as each vote has them.
    """

    a: str
    b: str
    num_votes: int
    num_a: int
    num_b: int
    num_tie: int
    num_both_bad: int


class BrokenLine(NamedTuple):
    """A line that holds no vote, and why."""

    reason: str


def json_sha256(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys, hex."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def append_vote(path: Path, vote: Vote) -> None:
    """Add a line to the file, made where it is not there; it is on the disk when this returns.

    Several processes may do so at a time. A line that a kill has cut off is removed first: nobody
    was told that it was kept. Errors: `UserError` where the file cannot be written; it is then as
    it was.
    """
    line = orjson.dumps(_ordered(vote)) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        # 0600: votes hold what people have asked.
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _append(handle, line)
        finally:
            os.close(handle)
        if is_new:
            _flush_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"the vote cannot be kept: {error.strerror or error}",
            where=path,
            remedy="free some disk space or check the permissions",
        ) from error


def read_votes(path: Path) -> list[Vote]:
    """All votes of a file in its order; none where there is no file.

    A last line that a kill has cut off, or that is just being written, is not counted. Errors:
    `UserError` with file and line for any other line that holds no vote, and for an unreadable
    file.
    """
    votes: list[Vote] = []
    for number, found in vote_lines(path):
        if isinstance(found, BrokenLine):
            raise UserError(
                f"the line holds no vote: {found.reason}",
                where=f"{path}:{number}",
                remedy="mend or remove the line",
            )
        votes.append(found)
    return votes


def vote_lines(path: Path) -> Iterator[tuple[int, Vote | BrokenLine]]:
    """Each line's number and vote, or why it holds none; blank lines and a cut last one are none.

    Errors: `UserError` where the file is there and cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"cannot read the votes: {error.strerror or error}",
            where=path,
            remedy="check the file's permissions",
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = parse_vote(line)
        is_cut = number == len(lines) and isinstance(found, BrokenLine)
        if not is_cut:
            yield number, found


def parse_vote(line: bytes) -> Vote | BrokenLine:
    """The vote of a line, or why it holds none."""
    try:
        return Vote.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return BrokenLine(f"{place}: {first['msg']}" if place else first["msg"])


def count_votes(votes: Iterable[Vote]) -> list[VoteCount]:
    """How votes went, for each pair of models in the order of its first vote."""
    by_pair: dict[tuple[str, str], list[Choice]] = {}
    for vote in votes:
        is_turned = vote.a.model > vote.b.model
        pair = (vote.b.model, vote.a.model) if is_turned else (vote.a.model, vote.b.model)
        by_pair.setdefault(pair, []).append(_turned(vote.choice) if is_turned else vote.choice)
    return [_count(*pair, choices) for pair, choices in by_pair.items()]


def _count(a: str, b: str, choices: Sequence[Choice]) -> VoteCount:
    return VoteCount(
        a=a,
        b=b,
        num_votes=len(choices),
        num_a=choices.count("a"),
        num_b=choices.count("b"),
        num_tie=choices.count("tie"),
        num_both_bad=choices.count("both_bad"),
    )


def _turned(choice: Choice) -> Choice:
    if choice == "a":
        return "b"
    return "a" if choice == "b" else choice


def _ordered(vote: Vote) -> dict[str, Any]:
    """What tells a vote from others first, for those who read the file."""
    told = vote.model_dump(mode="json")
    return {name: told[name] for name in ("id", "time", "client")} | told


def _append(handle: int, line: bytes) -> None:
    """Write behind the last whole line; the caller holds the lock."""
    size = os.fstat(handle).st_size
    rest = _unended_line(handle, size)
    # Editors may leave the end of the last line out.
    if rest and isinstance(parse_vote(rest), Vote):
        line = b"\n" + line
    elif rest:
        size -= len(rest)
        os.ftruncate(handle, size)
    try:
        num_written = os.write(handle, line)
        if num_written < len(line):
            num_written += os.write(handle, line[num_written:])
        assert num_written == len(line), "a full disk raises at the second write"
        os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, size)
        raise


def _unended_line(handle: int, size: int) -> bytes:
    """What stands behind the last line's end."""
    rest = b""
    while size > 0 and b"\n" not in rest:
        start = max(0, size - READ_BYTES)
        rest = os.pread(handle, size - start, start) + rest
        size = start
    return rest.rpartition(b"\n")[2]


def _flush_folder(folder: Path) -> None:
    """A new file's name is on the disk only with its folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
