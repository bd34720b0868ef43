"""The function that clients are told of."""

from typing import Any

FIND: Any = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Look something up",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["number"],
            "additionalProperties": False,
        },
    },
}
