"""A local JSON Lines file: one conversation a line, each bad line kept as a reject."""

import codecs
import json
from collections.abc import Mapping
from dataclasses import replace

from configs.schema import JsonlSource
from data.checks import RowError, check_characters, parse_messages
from data.conversation import Conversation, Reject, SourceRows
from data.fingerprint import unreadable


def load(source: JsonlSource) -> SourceRows:
    """Read every line of `source.path`; blank lines are not rows.

    An id that the file gives again is told apart by its line.
    """
    conversations: list[Conversation] = []
    rejects: list[Reject] = []
    ids: set[str] = set()
    try:
        lines = source.path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise unreadable(source, error) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source.path.name}:{number}"
        try:
            conversation = _parse_line(line, where)
        except (ValueError, RecursionError) as error:
            rejects.append(Reject(where=where, reason=_reason(error)))
            continue
        if conversation.id in ids:
            conversation = replace(conversation, id=f"{conversation.id} ({where})")
        ids.add(conversation.id)
        conversations.append(conversation)
    return SourceRows(
        conversations=conversations,
        num_read=len(conversations) + len(rejects),
        licence=source.licence,
        attribution=source.attribution,
        rejects=rejects,
    )


def _parse_line(line: bytes, where: str) -> Conversation:
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise RowError(f"a line is {type(row).__name__}, not an object")
    return Conversation(
        id=_label(row, "id") or where,
        messages=parse_messages(row),
        group=_label(row, "group"),
    )


def _label(row: Mapping[str, object], key: str) -> str:
    """The row's id or group, empty where it has none: `null` is nothing that rows could share."""
    value = row.get(key)
    label = "" if value is None else str(value)
    check_characters(label, f"`{key}`")
    return label


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "not usable JSON: nested too deeply"
    return str(error)
