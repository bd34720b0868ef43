"""Calls of tools out of OpenAI's wire, from hosts that number them, name them or do neither."""

import secrets
import string
from typing import Any

import orjson

from serve.engine import EngineError, Event, ToolCallDelta

CALL_ID_LENGTH = 9
"""What Mistral's chat templates ask of a call's id; others take any."""

Json = dict[str, Any]


class _Call:
    """A call of a tool. begun: its id and name have been told."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.name = ""
        self.arguments = ""
        self.begun = False


class CallReader:
    """The calls of one answer. choice: which of the request's answers."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    @property
    def num_calls(self) -> int:
        """Calls that have begun so far, told or not."""
        return len(self._calls)

    def feed(self, piece: Json, events: list[Event]) -> None:
        """Append the events of one entry of `tool_calls`."""
        function = piece.get("function") or {}
        call = self._find(piece, function)
        call.id = call.id or _known_id(piece)
        call.name = call.name or function.get("name") or ""
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        if call.begun:
            if arguments:
                call.arguments = arguments  # only whether there were any matters from here on
                events.append(
                    ToolCallDelta(call=call.number, arguments=arguments, choice=self._choice)
                )
            return
        call.arguments += arguments
        if call.name:
            call.begun = True
            call.id = call.id or new_call_id()
            events.append(
                ToolCallDelta(
                    call=call.number,
                    id=call.id,
                    name=call.name,
                    arguments=call.arguments,
                    choice=self._choice,
                )
            )

    def end(self, events: list[Event]) -> None:
        """Complete calls without arguments. Raises `EngineError` for one without a name."""
        for call in self._calls:
            if not call.begun:
                raise EngineError("the engine called a tool without naming it")
            if not call.arguments:
                events.append(ToolCallDelta(call=call.number, arguments="{}", choice=self._choice))

    def _find(self, piece: Json, function: Json) -> _Call:
        """The call that a piece belongs to; a new one where it begins one."""
        index, id = piece.get("index"), _known_id(piece)
        call = self._by_index.get(index) if index is not None else self._find_unnumbered(id)
        if call is None and index is None and not (id or function.get("name")) and self._calls:
            call = self._calls[-1]
        # Another id and a name begin another call, whatever the index says: 0 at all from some.
        if call is None or (id and call.id and id != call.id and function.get("name")):
            call = _Call(len(self._calls))
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _find_unnumbered(self, id: str) -> _Call | None:
        return next((call for call in self._calls if id and call.id == id), None)


def _known_id(piece: Json) -> str:
    id = piece.get("id")
    return id if isinstance(id, str) and id != "null" else ""  # Mistral's way to leave it out


def new_call_id() -> str:
    """An id for a call that came without one; nine letters and digits."""
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _ in range(CALL_ID_LENGTH))
