import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics.score import Reply
from evals.metrics.text import normalize_answer, score_exact_match, score_normalized_match
from tests.evals.metrics.questions import call_of, question_of


@pytest.mark.parametrize(
    ("answer", "exact", "normalized"),
    [
        ("Yes", 1, 1),
        (" Yes\n", 1, 1),
        ("yes.", 0, 1),
        ("YES", 0, 1),
        ("Yes..", 0, 0),
        ("**Yes**", 0, 0),
        ("The answer is Yes", 0, 0),
        ("", 0, 0),
    ],
)
def test_what_the_two_matches_forgive(answer: str, exact: int, normalized: int) -> None:
    assert score_exact_match(Reply(answer), question_of("Yes")).value == exact
    assert score_normalized_match(Reply(answer), question_of("Yes")).value == normalized


def test_case_is_folded_in_every_script() -> None:
    assert score_normalized_match(Reply("STRASSE  Ωμέγα"), question_of("Straße ωΜΈΓΑ")).value == 1


def test_exact_match_keeps_white_space_inside() -> None:
    assert score_exact_match(Reply("a  b"), question_of("a b")).value == 0


def test_an_empty_answer_does_not_match_a_reference_that_only_calls_tools() -> None:
    question = question_of("", calls=(call_of("f", {}),))
    for metric in (score_exact_match, score_normalized_match):
        score = metric(Reply(""), question)
        assert score.value == 0
        assert "tool_call" in score.why


@given(st.text())
def test_normalizing_ends_in_its_own_white_space_rule(text: str) -> None:
    normal = normalize_answer(text)
    assert " ".join(normal.split()) == normal
    assert normalize_answer(f"  {text}\n") == normal


def test_long_answers_are_judged() -> None:
    text = "a b\n" * 25_000
    assert score_normalized_match(Reply(text.upper()), question_of(text)).value == 1
