"""Request bodies that are taken, for tests to change."""

import json
from typing import Any

from serve.request.chat_request import ChatRequest, parse_chat_request

MODEL = "tiny"
PIXEL = "data:image/png;base64,iVBORw0="


def body(**fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """A body that is taken, but for what `fields` change."""
    return {"model": MODEL, "messages": [user("the river")]} | fields


def user(content: object, **fields: object) -> dict[str, Any]:
    return {"role": "user", "content": content} | fields


def call(id: str = "call_1", *, name: str = "look_up", arguments: object = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


def calling(*calls: dict[str, Any], **fields: object) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)} | fields


def reply(id: str = "call_1", **fields: object) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "42"} | fields


def tool(name: str = "look_up", **fields: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | fields}


def parse(content: object) -> ChatRequest:
    return parse_chat_request(json.dumps(content).encode())
