"""JSON as the standard has it: Python's reader also takes NaN and Infinity, which no other does."""

import json
from typing import Any, NoReturn


def parse_json(text: str) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    """The value of JSON text. Errors: `ValueError`, `RecursionError` where it nests too deeply."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
