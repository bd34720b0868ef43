import pytest

from data.tokens.rendered import Rendered, RowProblem, call_arguments, check_text, refused
from tests.conversations import call


def test_supervised_tokens_are_counted() -> None:
    assert Rendered([5, 6, 7], [0, 1, 1], 0).num_supervised == 2


def test_a_refused_row_has_no_tokens_and_says_why() -> None:
    rendered = refused(RowProblem("holds an image"))
    assert rendered == Rendered([], [], 0, "holds an image")
    assert rendered.num_supervised == 0


@pytest.mark.parametrize(
    ("text", "arguments"),
    [('{"a": [1, "é"]}', {"a": [1, "é"]}), ("{}", {}), ("", {})],
)
def test_the_arguments_of_a_call(text: str, arguments: dict[str, object]) -> None:
    assert call_arguments(call("c", text)) == arguments


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "the arguments of the call of look_up are not JSON"),
        ("a=1", "the arguments of the call of look_up are not JSON"),
        ("[]", "the arguments of the call of look_up are not a JSON object"),
        ('"a"', "the arguments of the call of look_up are not a JSON object"),
    ],
)
def test_arguments_that_are_no_object_are_told(text: str, problem: str) -> None:
    with pytest.raises(RowProblem) as caught:
        call_arguments(call("c", text))
    assert str(caught.value) == problem


def test_half_a_surrogate_pair_is_told() -> None:
    assert check_text("a é 👩‍👧") == "a é 👩‍👧"
    with pytest.raises(RowProblem, match="half of a surrogate pair"):
        check_text("a \ud83d b")
