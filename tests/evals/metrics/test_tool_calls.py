import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics.score import Reply
from evals.metrics.tool_calls import score_tool_calls
from tests.evals.metrics.questions import call_of, question_of, reply_of

OSLO = call_of("weather", {"city": "Oslo", "days": 2})
ROME = call_of("weather", {"city": "Rome", "days": 2})


@pytest.mark.parametrize(
    "arguments",
    [
        '{"days": 2, "city": "Oslo"}',
        '{"city": " Oslo\\n", "days": 2.0}',
        ' {"city":"\\u004fslo","days":2e0} ',
    ],
)
def test_arguments_are_compared_as_json_values(arguments: str) -> None:
    score = score_tool_calls(reply_of(call_of("weather", arguments)), question_of(calls=(OSLO,)))
    assert score.value == 1


@pytest.mark.parametrize(
    ("expected", "given_"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": "Oslo"}, {"a": "oslo"}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {}}, {"a": []}),
        ({"a": ""}, {"a": None}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": [[]]}, {"a": []}),
    ],
)
def test_other_arguments_are_no_match(expected: object, given_: object) -> None:
    score = score_tool_calls(
        reply_of(call_of("f", given_)), question_of(calls=(call_of("f", expected),))
    )
    assert score.value == 0
    assert "other arguments" in score.why


@pytest.mark.parametrize("arguments", ["", "{", "[]", "null", '"{}"', '{"a": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_match_nothing(arguments: str) -> None:
    question = question_of(calls=(call_of("f", {"a": 1}),))
    assert score_tool_calls(reply_of(call_of("f", arguments)), question).value == 0


def test_no_arguments_are_an_empty_object() -> None:
    question = question_of(calls=(call_of("f", "{}"),))
    assert score_tool_calls(reply_of(call_of("f", "")), question).value == 1


def test_the_order_of_calls_is_free_unless_it_is_asked_for() -> None:
    both = question_of(calls=(OSLO, ROME))
    in_order = question_of(calls=(OSLO, ROME), ordered=True)
    assert score_tool_calls(reply_of(ROME, OSLO), both).value == 1
    assert score_tool_calls(reply_of(ROME, OSLO), in_order).value == 0
    assert "order" in score_tool_calls(reply_of(ROME, OSLO), in_order).why
    assert score_tool_calls(reply_of(OSLO, ROME), in_order).value == 1


@pytest.mark.parametrize("calls", [(), (OSLO,), (OSLO, OSLO), (OSLO, ROME, ROME)])
def test_each_call_counts_once(calls: tuple[object, ...]) -> None:
    question = question_of(calls=(OSLO, ROME))
    assert score_tool_calls(reply_of(*calls, text="Oslo"), question).value == 0  # type: ignore[arg-type]


def test_what_was_called_instead_is_told() -> None:
    question = question_of(calls=(OSLO,))
    assert score_tool_calls(Reply("It rains."), question).why == "no call was made"
    assert score_tool_calls(reply_of(call_of("news", {})), question).why == (
        "called news instead of weather"
    )
    score = score_tool_calls(reply_of(ROME), question)
    assert score.label == 'weather({"city": "Rome", "days": 2})'


def test_where_no_call_is_expected_none_may_be_made_and_the_text_counts() -> None:
    answered = question_of("It rains.")
    assert score_tool_calls(Reply("it  rains"), answered).value == 1
    assert score_tool_calls(Reply("Sun"), answered).value == 0
    assert score_tool_calls(reply_of(OSLO, text="It rains."), answered).value == 0
    assert score_tool_calls(Reply("I cannot."), question_of("")).value == 1
    assert score_tool_calls(reply_of(OSLO), question_of("")).value == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_arguments_equal_themselves_however_written(arguments: dict[str, object]) -> None:
    question = question_of(calls=(call_of("f", json.dumps(arguments)),))
    written = json.dumps(dict(reversed(arguments.items())), indent=2, ensure_ascii=False)
    assert score_tool_calls(reply_of(call_of("f", written)), question).value == 1
    more = json.dumps(arguments | {"another": [arguments]})
    assert score_tool_calls(reply_of(call_of("f", more)), question).value == 0
