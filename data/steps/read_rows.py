"""From a chunk of a source to rows in the spool: sound, without what must not stay, with hashes.

Runs in any of several processes; all that it gives back is small or Arrow.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import orjson
import pyarrow as pa

from configs.data_schema import PersonalDataConfig, PersonalDataKind
from data.conversation import ContentPart, Conversation, Message, Reject, Source
from data.personal.findings import Finding, PersonalDataFinder, mask, redact
from data.splits import SIDE_CODES, TEST
from data.steps.spool import batch_of

MAX_EXAMPLES = 20


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """What a process has to know to read a source's chunks; number: the source's place."""

    source: Source
    number: int
    personal_data: PersonalDataConfig
    is_evaluation_task: bool = False


@dataclass(frozen=True)
class PersonalDataExample:
    """A finding as it may be shown: where, what, and a text that gives nothing away."""

    where: str
    kind: PersonalDataKind
    redacted: str


@dataclass(kw_only=True)
class ReadResult:
    """A chunk's rows and counts; num_unanswered counts rows used without their last turns."""

    number: int
    num_read: int
    rejects: list[Reject]
    dropped: Counter[str]
    batch: pa.RecordBatch | None = None
    num_unanswered: int = 0
    findings: Counter[PersonalDataKind] = field(default_factory=Counter)
    num_rows_with_findings: int = 0
    examples: list[PersonalDataExample] = field(default_factory=list)


def read_chunk(task: ReadTask, chunk: object) -> ReadResult:
    """Read, clean and hash the rows of one chunk."""
    rows = task.source.read(chunk)
    result = ReadResult(
        number=task.number,
        num_read=rows.num_read,
        rejects=list(rows.rejects),
        dropped=Counter(rows.dropped),
    )
    answered = [_answered_part(row, result) for row in rows.conversations]
    kept = _without_personal_data(answered, task.personal_data, result)
    if kept:
        result.batch = _to_batch(kept, task)
    return result


def _answered_part(row: Conversation, result: ReadResult) -> Conversation:
    """The row up to its last assistant turn: a parting word of the user asks nothing."""
    if row.messages[-1]["role"] == "assistant":
        return row
    result.num_unanswered += 1
    end = max(n for n, turn in enumerate(row.messages) if turn["role"] == "assistant")
    return replace(row, messages=row.messages[: end + 1])


def _without_personal_data(
    rows: list[Conversation], config: PersonalDataConfig, result: ReadResult
) -> list[Conversation]:
    """The rows after the configured action; what was found is counted in `result`."""
    if not config.kinds:
        return rows
    texts = [_texts(row) for row in rows]
    owners = [number for number, own in enumerate(texts) for _ in own]
    flat = [text for own in texts for text in own]
    found: dict[int, dict[int, list[Finding]]] = {}
    for finding in _finder(tuple(config.kinds)).find(flat):
        owner = owners[finding.row]
        found.setdefault(owner, {}).setdefault(finding.row, []).append(finding)
        result.findings[finding.kind] += 1
        if len(result.examples) < MAX_EXAMPLES:
            text = flat[finding.row][finding.start : finding.end]
            told = redact(text, kind=finding.kind)
            result.examples.append(PersonalDataExample(_place(rows[owner]), finding.kind, told))
    result.num_rows_with_findings = len(found)
    if not found or config.action == "report":
        return rows
    if config.action == "drop":
        for owner, by_text in found.items():
            kinds = sorted({finding.kind for findings in by_text.values() for finding in findings})
            reason = f"holds personal data ({', '.join(kinds)})"
            result.rejects.append(Reject(where=_place(rows[owner]), reason=reason))
        return [row for number, row in enumerate(rows) if number not in found]
    masked = list(rows)
    for owner, by_text in found.items():
        first = owners.index(owner)
        own = [mask(text, by_text.get(first + n, [])) for n, text in enumerate(texts[owner])]
        masked[owner] = _with_texts(rows[owner], iter(own))
    return masked


def _place(row: Conversation) -> str:
    return row.where or row.id


@lru_cache(maxsize=1)
def _finder(kinds: tuple[PersonalDataKind, ...]) -> PersonalDataFinder:
    return PersonalDataFinder(kinds)


def _texts(row: Conversation) -> list[str]:
    """All that is said in a row, in an order that `_with_texts` knows."""
    turns = (*row.messages, row.rejected) if row.rejected else row.messages
    texts = []
    for turn in turns:
        if isinstance(turn["content"], str):
            texts.append(turn["content"])
        else:
            texts += [part["text"] for part in turn["content"] if part["type"] == "text"]
        texts += [call["function"]["arguments"] for call in turn.get("tool_calls", ())]
    return texts


def _with_texts(row: Conversation, texts: Iterator[str]) -> Conversation:
    messages = tuple(_turn_with_texts(turn, texts) for turn in row.messages)
    rejected = _turn_with_texts(row.rejected, texts) if row.rejected else None
    return replace(row, messages=messages, rejected=rejected)


def _turn_with_texts(turn: Message, texts: Iterator[str]) -> Message:
    changed: Message = {**turn, "content": _content_with_texts(turn["content"], texts)}
    if "tool_calls" in turn:
        changed["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": next(texts)}}
            for call in turn["tool_calls"]
        ]
    return changed


def _content_with_texts(
    content: str | list[ContentPart], texts: Iterator[str]
) -> str | list[ContentPart]:
    if isinstance(content, str):
        return next(texts)
    return [
        {"type": "text", "text": next(texts)} if part["type"] == "text" else part
        for part in content
    ]


def _to_batch(rows: Sequence[Conversation], task: ReadTask) -> pa.RecordBatch:
    messages = [orjson.dumps(row.messages) for row in rows]
    tools = [orjson.dumps(row.tools) if row.tools else b"" for row in rows]
    rejected = [orjson.dumps(row.rejected) if row.rejected else b"" for row in rows]
    asked = [asked_hashes(row.messages) for row in rows]
    side = TEST if task.is_evaluation_task else None
    return batch_of(
        {
            "key": [
                hashlib.sha256(b"\0".join(parts)).digest()[:16]
                for parts in zip(messages, tools, rejected, strict=True)
            ],
            "id": [row.id for row in rows],
            "where": [_place(row) for row in rows],
            "group": [row.group for row in rows],
            "side": [SIDE_CODES[row.side] if side is None else side for row in rows],
            "source": [task.number] * len(rows),
            "group_hash": [group_hash(row.group, task.number) for row in rows],
            "question": [hashes[-1] for hashes in asked],
            "asked": asked,
            "messages": messages,
            "tools": tools,
            "rejected": rejected,
        }
    )


def group_hash(group: str, source: int) -> int:
    """64 bits of SHA-256; 0 without a group. Groups of different sources are different ones."""
    if not group:
        return 0
    name = f"{source}\0{group}" if source else group
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def asked_hashes(messages: Sequence[Message]) -> list[int]:
    """For each assistant turn a hash of what stands before it, whatever its case and white space.

    The assistant's own turns do not count. 64 bits of SHA-256.
    """
    digest = hashlib.sha256()
    hashes = []
    for turn in messages:
        if turn["role"] == "assistant":
            hashes.append(int.from_bytes(digest.digest()[:8]))
        else:
            content = turn["content"]
            text = content if isinstance(content, str) else orjson.dumps(content).decode()
            digest.update(" ".join(text.casefold().split()).encode() + b" ")
    return hashes
