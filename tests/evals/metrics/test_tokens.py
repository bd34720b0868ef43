import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics.score import Reply
from evals.metrics.tokens import (
    rouge_l,
    rouge_tokens,
    score_rouge_l,
    score_token_f1,
    squad_tokens,
    token_f1,
)
from tests.evals.metrics.questions import question_of


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1),
        ("in the year 1889", "1889", 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("a a b", "a b b b", 2 * (1 * 1 / 4) / (1 + 1 / 4)),  # "a" is an article: b against bbb
        ("x x y", "x y y", 2 / 3),
        ("U.S.", "us", 1),
        ("well-known", "wellknown", 1),
        ("", "", 1),
        ("the", "an", 1),
        ("", "x", 0),
        ("x", "", 0),
        ("„Ωμέγα“ …", "ωμέγα", 1),
        ("$5", "5", 1),
        ("北京市", "北京", 2 * 2 / 5),
        ("Cafe\u0301", "café", 1),
    ],
)
def test_token_f1_counts_shared_words(answer: str, expected: str, value: float) -> None:
    if (answer, expected) == ("a a b", "a b b b"):
        assert squad_tokens(answer) == ["b"]
        value = 2 * 1 / 4
    assert score_token_f1(Reply(answer), question_of(expected)).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        # The values of rouge-score 0.1.2, RougeScorer(["rougeL"]), F-measure.
        ("the cat sat on the mat", "the cat was on the mat", 0.8333333333333334),
        ("police killed the gunman", "police kill the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("Don't stop-believing, 2 times!", "Don't stop believing 3 times", 0.8333333333333334),
        # That library knows ASCII alone and says 0.
        ("Καλημέρα κόσμε", "καλημέρα, Κόσμε!", 1),
        ("हिन्दी भाषा", "हिन्दी", 2 / 3),
        ("", "x", 0),
        ("", "", 1),
    ],
)
def test_rouge_l_counts_shared_words_in_order(answer: str, expected: str, value: float) -> None:
    assert score_rouge_l(Reply(answer), question_of(expected)).value == pytest.approx(value)


def test_combining_marks_stay_with_their_letters() -> None:
    assert rouge_tokens("हिन्दी snake_case x²") == ["हिन्दी", "snake", "case", "x²"]


WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@given(WORDS, WORDS)
def test_both_are_symmetric_shares_and_order_only_lowers_rouge(
    first: list[str], second: list[str]
) -> None:
    for measure in (token_f1, rouge_l):
        assert measure(first, second) == measure(second, first)
        assert 0 <= measure(first, second) <= 1
        assert measure(first, first) == 1
    assert rouge_l(first, second) <= token_f1(first, second)


@given(st.text(), st.text())
def test_any_text_is_scored(first: str, second: str) -> None:
    for metric in (score_token_f1, score_rouge_l):
        assert 0 <= metric(Reply(first), question_of(second)).value <= 1
        assert metric(Reply(first), question_of(first)).value == 1


def test_long_texts_are_scored_at_once() -> None:
    text = "lorem ipsum " * 8_000
    assert score_rouge_l(Reply(text + "x"), question_of(text)).value > 0.99
    assert score_token_f1(Reply(text + "x"), question_of(text)).value > 0.99
    assert score_rouge_l(Reply("x" * 100_000), question_of("x")).value == 0
