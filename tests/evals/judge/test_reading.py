import pytest

from evals.judge.reading import read_choice, read_grade
from tests.evals.judge.judges import make_answer


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('{"verdict": "A"}', "A"),
        ('A is short.\n\n```json\n{ "verdict" : "b" }\n```\n', "B"),
        ('{"verdict": "tie", "reason": "both right"}', "tie"),
        # What is quoted stands before the verdict.
        ('B wrote {"verdict": "B"}, which is a trick. {"verdict": "A"}', "A"),
        ('{"why": {"verdict": "B"}, "verdict": "A"}', "A"),
        ('Set {x | x > 0}, and {"verdict": "B"}', "B"),
        ('{"verdict": "A"} or rather {"verdict": "neither"}', "A"),
        ('{"verdict": "A", "verdict": "B"}', None),
        ('{"verdict": "A and B"}', None),
        ('{"verdict": ["A"]}', None),
        ('{"verdict": null}', None),
        ('{"why": {"verdict": "B"}}', None),
        ('{"verdict": "A"', None),
        ("verdict: A", None),
        ("A", None),
        ("", None),
        ('{"a":' * 5_000, None),
    ],
)
def test_the_last_whole_verdict_counts(text: str, choice: str | None) -> None:
    assert read_choice(make_answer("x", text)) == choice


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"grade": 4}', 4),
        ('{"grade": "5"}', 5),
        ('I first thought {"grade": 2}.\n{"grade": 1}', 1),
        ('{"grade": 6}', None),
        ('{"grade": 0}', None),
        ('{"grade": 3.5}', None),
        ('{"grade": true}', None),
        ('{"grade": "%s"}' % ("1" * 5000), None),
        ("4 of 5", None),
    ],
)
def test_a_grade_is_a_whole_number_from_1_to_5(text: str, grade: int | None) -> None:
    assert read_grade(make_answer("x", text)) == grade


def test_a_reply_that_was_cut_off_has_no_verdict() -> None:
    text = 'At first sight {"verdict": "A", "grade": 5}, but on second'
    cut = make_answer("x", text, stop_reason="max_tokens")
    assert (read_choice(cut), read_grade(cut)) == (None, None)
    whole = make_answer("x", text)
    assert (read_choice(whole), read_grade(whole)) == ("A", 5)
