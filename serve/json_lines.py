"""The form of all that a server logs: a line of JSON a record, and no secrets in it.

An exception within a request is told by its class and its frames: its words may quote what the
client sent.
"""

import contextlib
import json
import logging
import re
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from pythonjsonlogger.core import BaseJsonFormatter

from serve.access.key_file import KEY_PREFIX

KEY_LIKE = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4}))"  # the latter two: JSON's escapes
    rf"(?:{KEY_PREFIX}|sk-)[A-Za-z0-9_-]{{16,}}"
)
"""Keys of this server and of hosts, in a line of JSON. Masked wherever they stand, in a path for
one: nothing that is logged on purpose looks like one."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class JsonLines(BaseJsonFormatter):
    """Each record as one line of ASCII: no character of a client's can end it or move a cursor."""

    def __init__(self, request_id: Callable[[], str]) -> None:
        """request_id: the id that the running task works for, empty outside of requests."""
        super().__init__()
        self._request_id = request_id
        self._encode = json.JSONEncoder(default=str).encode

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Time, level and id first, then what the record says."""
        created = datetime.fromtimestamp(record.created, UTC)
        log_data["time"] = created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        if id := self._request_id():
            log_data["request_id"] = id
        log_data["message"] = record.message
        told: Mapping[str, Any] = record.__dict__.get("told", {})
        log_data.update(told)
        log_data.update(message_dict)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """The line, without its end."""
        line = self._encode(log_data)
        if KEY_PREFIX in line or "sk-" in line:  # the pattern costs as much as all the rest
            line = KEY_LIKE.sub("***", line)
        return line

    def formatException(self, ei: ExcInfo) -> str:  # type: ignore[override]
        """The traceback; within a request without the exceptions' own words."""
        if not self._request_id():
            return "".join(traceback.format_exception(*ei)).rstrip()
        return "\n".join(_wordless(ei[1]))


def _wordless(error: BaseException) -> list[str]:
    """Classes and frames of an exception and of what led to it, the first cause first."""
    lines: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        frames = [line.rstrip() for line in traceback.format_tb(following.__traceback__)]
        parts = following.exceptions if isinstance(following, BaseExceptionGroup) else ()
        within = [line for part in parts for line in _wordless(part)]
        lines = [*within, *frames, type(following).__qualname__, *lines]
        cause = following.__cause__
        hidden = following.__suppress_context__
        following = cause if cause is not None or hidden else following.__context__
    return lines


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; a record that cannot be put into words is told by where it was logged."""

    def handleError(self, record: logging.LogRecord) -> None:
        """The standard handler would print the record's arguments, whatever they hold."""
        told = {"level": "error", "logger": record.name, "message": "a record was not logged"}
        with contextlib.suppress(Exception):
            self.stream.write(json.dumps(told | {"where": f"{record.pathname}:{record.lineno}"}))
            self.stream.write(self.terminator)
