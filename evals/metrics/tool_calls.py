"""Whether an answer makes the tool calls that were expected of it."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from data.conversation import ToolCall, text_of
from evals.metrics.score import Reply, Score
from evals.metrics.strict_json import parse_json
from evals.metrics.text import normalize_answer
from evals.task import Question


class _Call(NamedTuple):
    name: str
    arguments: Hashable


def score_tool_calls(reply: Reply, question: Question) -> Score:
    """1 where the calls are those of the reference, 0 otherwise.

    The same functions, each as often, with arguments equal as JSON values: 1 equals 1.0 (but not
    true), the order of keys is free, strings are compared with their white space folded; an
    argument left out is not one given as null. The order of calls is free unless
    question.check["ordered"] is true. Text beside the calls is not looked at. No partial credit,
    as in the Berkeley Function Calling Leaderboard: half a call runs no program.

    Where the reference calls nothing, the answer must not either, and its text, if the reference
    has one, must match after `normalize_answer`. label: the calls as understood.
    """
    label = render_calls(reply.tool_calls)
    expected = question.reference.get("tool_calls", [])
    if not expected:
        return _score_without_calls(reply, text_of(question.reference), label)
    wanted = [_canonical_call(call) for call in expected]
    given = [_canonical_call(call) for call in reply.tool_calls]
    if None in given:
        return Score(0.0, label, "a call's arguments are not a JSON object")
    same = Counter(given) == Counter(wanted)
    if question.check.get("ordered"):
        same = given == wanted
    return Score(float(same), label, "" if same else _tell(given, wanted, expected))


def render_calls(calls: Iterable[ToolCall]) -> str:
    """Calls as one line for readers: `name({…}); name({…})`."""
    return "; ".join(
        f"{call['function']['name']}({call['function']['arguments'].strip() or '{}'})"
        for call in calls
    )


def _score_without_calls(reply: Reply, expected: str, label: str) -> Score:
    if reply.tool_calls:
        return Score(0.0, label, "no call was expected")
    text = normalize_answer(reply.text)
    if expected.strip() and text != normalize_answer(expected):
        return Score(0.0, text, "no call was expected, but another text")
    return Score(1.0, text)


def _canonical_call(call: ToolCall) -> _Call | None:
    """None where the arguments are not a JSON object; no arguments at all are an empty one."""
    try:
        arguments = parse_json(call["function"]["arguments"].strip() or "{}")
        if not isinstance(arguments, dict):
            return None
        return _Call(call["function"]["name"], _canonical(arguments))
    except (ValueError, RecursionError):
        return None


def _canonical(value: object) -> Hashable:
    """A form that is equal where JSON values are; bool is tagged, for Python's True equals 1."""
    if isinstance(value, dict):
        return "object", frozenset((key, _canonical(one)) for key, one in value.items())
    if isinstance(value, list):
        return "array", tuple(_canonical(one) for one in value)
    if isinstance(value, str):
        return "string", " ".join(value.split())
    if isinstance(value, bool):
        return "bool", value
    return "null" if value is None else "number", value if isinstance(value, int | float) else None


def _tell(
    given: Sequence[_Call | None], wanted: Sequence[_Call | None], expected: Sequence[ToolCall]
) -> str:
    if not given:
        return "no call was made"
    names, wanted_names = _names(given), _names(wanted)
    if Counter(names) != Counter(wanted_names):
        return f"called {', '.join(names)} instead of {', '.join(wanted_names)}"
    if Counter(given) == Counter(wanted):
        return "the right calls in another order"
    return f"other arguments than in {render_calls(expected)}"


def _names(calls: Sequence[_Call | None]) -> list[str]:
    return [call.name for call in calls if call is not None]
