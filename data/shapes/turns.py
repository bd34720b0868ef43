"""Turns in OpenAI's form, as rows bring them, to turns as chat templates and servers take them."""

import binascii
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from data.checks import RowError
from data.conversation import (
    ROLES,
    ContentPart,
    ImagePart,
    Message,
    Role,
    ToolCall,
    ToolDefinition,
)
from data.shapes.columns import json_in, kind_of

ROLE_NAMES: dict[str, Role] = {**{role: role for role in ROLES}, "developer": "system"}
IMAGE_URL = re.compile(r"data:image/[\w.+-]+;base64,")


def parse_turns(turns: list[Any]) -> list[Message]:
    """Each turn, or a `RowError` that tells which one is wrong.

    White space around a turn is dropped: a leading blank in an answer would merge with the
    template's own line break into a token that is not the one met when the model answers. A tool's
    reply without an id answers the first call that still waits.
    """
    messages: list[Message] = []
    waiting: list[str] = []
    for number, turn in enumerate(turns, start=1):
        message = _parse_turn(turn, number)
        if message["role"] == "tool":
            _pair_reply(message, waiting, number)
        elif "tool_calls" in message:
            waiting = [call["id"] for call in message["tool_calls"]]
        messages.append(message)
    return messages


def parse_tools(value: object) -> tuple[ToolDefinition, ...]:
    """Tool definitions in OpenAI's form, given as a list or as JSON text of one; none for null."""
    if value is None or value == "" or value == []:
        return ()
    if isinstance(value, str):
        return _parse_tools_text(value)
    return _parse_tools(value)


def _parse_turn(turn: object, number: int) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is {kind_of(turn)}, not an object")
    named = turn.get("role")
    role = ROLE_NAMES.get(named) if isinstance(named, str) else None
    if role is None:
        raise RowError(f"turn {number}: role {_told(named)} is none of {', '.join(ROLE_NAMES)}")
    content = turn.get("content")
    if role == "tool":
        reply: Message = {"role": role, "content": _parse_content(content, number, role)}
        if turn.get("tool_call_id"):
            reply["tool_call_id"] = str(turn["tool_call_id"])
        return reply
    if role == "assistant":
        if turn.get("function_call"):
            raise RowError(f"turn {number}: `function_call` is an old form, give `tool_calls`")
        if turn.get("tool_calls"):
            called = "" if content is None else _parse_content(content, number, role)
            calls = _parse_calls(turn["tool_calls"], number)
            return {"role": role, "content": called, "tool_calls": calls}
    if type(content) is str:
        return {"role": role, "content": content.strip()}
    return {"role": role, "content": _parse_content(content, number, role)}


def _pair_reply(message: Message, waiting: list[str], number: int) -> None:
    """Give a reply without an id the first call that waits; take the answered one off the list."""
    id = message.get("tool_call_id")
    if id is None:
        if not waiting:
            raise RowError(f"turn {number} is a tool's reply, but no call waits for one")
        message["tool_call_id"] = waiting.pop(0)
    elif id in waiting:
        waiting.remove(id)


def _parse_content(content: object, number: int, role: Role) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        raise RowError(f"turn {number}: content is {kind_of(content)}, not text")
    parts = [_parse_part(part, number, place) for place, part in enumerate(content, start=1)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts if part["type"] == "text").strip()
    if role != "user":
        raise RowError(f"turn {number}: an image in a turn of the {role}; only users show images")
    return [part for part in parts if part["type"] != "text" or part["text"]]


def _parse_part(part: object, number: int, place: int) -> ContentPart:
    if not isinstance(part, dict):
        raise RowError(f"turn {number}: part {place} is {kind_of(part)}, not an object")
    kind = part.get("type")
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise RowError(f"turn {number}: text of part {place} is {kind_of(text)}")
        return {"type": "text", "text": text}
    if kind == "image_url":
        return _parse_image(part.get("image_url"), number)
    raise RowError(
        f"turn {number}: part {place} is of type {_told(kind)}; `text` and `image_url` are read"
    )


def _parse_image(image: object, number: int) -> ImagePart:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise RowError(f"turn {number}: an image without a `url`")
    header = IMAGE_URL.match(url)
    if header is None:
        raise RowError(
            f"turn {number}: the image {_told(url)} is not within the row: give a "
            "`data:image/…;base64,` URL, nothing is fetched"
        )
    try:
        data = binascii.a2b_base64(url[header.end() :], strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise RowError(f"turn {number}: an image is not valid base64: {error}") from error
    if not data:
        raise RowError(f"turn {number}: an image holds no data")
    return {"type": "image_url", "image_url": {"url": url}}


def _parse_calls(calls: object, number: int) -> list[ToolCall]:
    if not isinstance(calls, list):
        raise RowError(f"turn {number}: `tool_calls` is {kind_of(calls)}, not a list")
    parsed: list[ToolCall] = []
    for place, call in enumerate(calls, start=1):
        where = f"turn {number}: call {place}"
        if not isinstance(call, dict):
            raise RowError(f"{where} is {kind_of(call)}, not an object")
        function = call.get("function") or call
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise RowError(f"{where} names no function")
        id = str(call.get("id") or f"call_{number}_{place}")
        arguments = _parse_arguments(function.get("arguments"), where)
        parsed.append(
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        )
    return parsed


def _parse_arguments(arguments: object, where: str) -> str:
    """JSON text of an object, from one or from an object."""
    if arguments is None or arguments == "":
        return "{}"
    if isinstance(arguments, str):
        if not isinstance(json_in(arguments, f"{where}: `arguments`"), dict):
            raise RowError(f"{where}: `arguments` are not JSON text of an object")
        return arguments
    if not isinstance(arguments, dict):
        raise RowError(f"{where}: `arguments` is {kind_of(arguments)}, not an object")
    return _dumped(arguments, f"{where}: `arguments`").decode()


@lru_cache(maxsize=256)
def _parse_tools_text(text: str) -> tuple[ToolDefinition, ...]:
    """Many rows of a file share their tools."""
    return _parse_tools(json_in(text, "`tools`"))


def _parse_tools(value: object) -> tuple[ToolDefinition, ...]:
    if not isinstance(value, list):
        raise RowError(f"`tools` is {kind_of(value)}, not a list")
    tools = tuple(_parse_tool(tool, place) for place, tool in enumerate(value, start=1))
    names = [tool["function"]["name"] for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RowError(f"two tools have the name {twice!r}")
    _dumped(tools, "`tools`")
    return tools


def _parse_tool(tool: object, place: int) -> ToolDefinition:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, Mapping):
        raise RowError(f"tool {place} is {kind_of(tool)}, not an object with a `function`")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise RowError(f"tool {place} has no name")
    if isinstance(parameters, str):
        parameters = json_in(parameters, f"tool {name!r}: `parameters`")
    if parameters is not None and not isinstance(parameters, dict):
        raise RowError(f"tool {name!r}: `parameters` is {kind_of(parameters)}, not an object")
    if not isinstance(function.get("description", ""), str | None):
        raise RowError(f"tool {name!r}: `description` is not text")
    kept = {key: value for key, value in function.items() if value is not None and key != "type"}
    if parameters is not None:
        kept["parameters"] = parameters
    return {"type": "function", "function": kept}


def _dumped(value: object, name: str) -> bytes:
    """JSON text, or a `RowError` for what other programs could not read: too deep, too large."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise RowError(f"{name} cannot be written as JSON: {error}") from error


def _told(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}…"
