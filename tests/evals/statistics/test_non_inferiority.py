import numpy as np
import pytest

from evals.statistics.non_inferiority import judge_non_inferiority, pool_comparisons
from tests.evals.statistics.conftest import Compare, pairs


def test_a_variant_passes_only_where_the_bound_clears_the_margin(compare: Compare) -> None:
    held = compare(*pairs(won=20, lost=20, both=400)).estimate
    result = judge_non_inferiority(held, margin=0.05, confidence=0.95)
    assert result.passed
    assert -0.05 < result.lower_bound < 0
    assert not judge_non_inferiority(held, margin=0.01, confidence=0.95).passed
    few = compare(*pairs(won=2, lost=2, both=40)).estimate
    assert not judge_non_inferiority(few, margin=0.05, confidence=0.95).passed


def test_pooling_weighs_tasks_alike_whatever_their_size(compare: Compare) -> None:
    small = compare(*pairs(won=10, both=30))
    large = compare(*pairs(lost=30, both=270))
    pooled = pool_comparisons([small, large])
    assert pooled.delta == pytest.approx((0.25 - 0.1) / 2)
    assert pooled.variance == pytest.approx((small.estimate.variance + large.estimate.variance) / 4)


def test_pooling_equal_binary_tasks_is_one_task_of_all_questions(compare: Compare) -> None:
    parts = [compare(*pairs(won=2, lost=3, both=35)) for _ in range(6)]
    whole = compare(*pairs(won=12, lost=18, both=210))
    bounds = [
        judge_non_inferiority(estimate, margin=0.05, confidence=0.95).lower_bound
        for estimate in (pool_comparisons(parts), whole.estimate)
    ]
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-6)


def test_freedom_is_pooled_by_welch_and_satterthwaite(compare: Compare) -> None:
    rng = np.random.default_rng(1)
    graded = [compare(*rng.uniform(size=(2, num))) for num in (20, 30)]
    first, second = (one.estimate for one in graded)
    expected = (first.variance + second.variance) ** 2 / (
        first.variance**2 / 19 + second.variance**2 / 29
    )
    assert pool_comparisons(graded).degrees_of_freedom == pytest.approx(expected)


def test_skewness_of_a_mean_of_tasks_is_less_than_of_each(compare: Compare) -> None:
    labels = [str(number // 4) for number in range(200)]
    one = compare(*pairs(lost=12, both=188), clusters=labels)
    pooled = pool_comparisons([one] * 4)
    # A sum of k equal independent parts has a kth of the squared skewness.
    assert pooled.third_moment**2 / pooled.variance**3 == pytest.approx(
        one.estimate.third_moment**2 / one.estimate.variance**3 / 4
    )


def test_tasks_on_which_nothing_differs_still_leave_doubt(compare: Compare) -> None:
    same = [compare(*pairs(both=20)) for _ in range(2)]
    result = judge_non_inferiority(pool_comparisons(same), margin=0.05, confidence=0.95)
    assert result.lower_bound < -0.05
    assert not result.passed


def test_pooling_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to pool"):
        pool_comparisons([])
