"""What a judge's reply says: the last whole verdict in it, or nothing."""

import json
from collections.abc import Iterator
from typing import Any, Literal, cast

from evals.task import Answer

Choice = Literal["A", "B", "tie"]
CHOICES: dict[str, Choice] = {"a": "A", "b": "B", "tie": "tie"}
MAX_GRADE = 5
GRADES = {str(grade): grade for grade in range(1, MAX_GRADE + 1)}


def read_choice(reply: Answer) -> Choice | None:
    """The last `{"verdict": "A" | "B" | "tie"}`; None where there is none or the reply was cut."""
    choice: Choice | None = None
    for verdict in _objects(reply):
        choice = CHOICES.get(str(verdict.get("verdict")).strip().casefold(), choice)
    return choice


def read_grade(reply: Answer) -> int | None:
    """The last `{"grade": 1 … 5}`; None where there is none or the reply was cut."""
    grade: int | None = None
    for verdict in _objects(reply):
        grade = GRADES.get(str(verdict.get("grade")).strip(), grade)
    return grade


def _objects(reply: Answer) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a reply, in order; those that name a key twice are left out."""
    # What a judge says before the limit cuts it off may be a thought and not yet its verdict.
    if reply.stop_reason == "max_tokens":
        return
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
    start = reply.text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(reply.text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield cast(dict[str, Any], found)
        start = reply.text.find("{", end)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)
