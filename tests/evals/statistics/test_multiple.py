import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

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


@settings(max_examples=5)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_both_are_those_of_statsmodels(p_values: list[float]) -> None:
    for adjust, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        assert adjust(p_values) == pytest.approx(multipletests(p_values, method=method)[1])
