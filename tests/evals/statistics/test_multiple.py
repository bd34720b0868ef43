import pytest

from evals.statistics.multiple import benjamini_hochberg, holm


def test_holm_follows_its_formula() -> None:
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1, never falling.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_benjamini_hochberg_follows_its_formula() -> None:
    # Sorted 0.01, 0.02, 0.5 times 3, 3/2, 1, never falling.
    assert benjamini_hochberg([0.5, 0.01, 0.02]) == pytest.approx([0.5, 0.03, 0.03])


def test_one_task_keeps_its_p_value_and_none_have_none() -> None:
    assert holm([0.03]) == benjamini_hochberg([0.03]) == [0.03]
    assert holm([]) == []
