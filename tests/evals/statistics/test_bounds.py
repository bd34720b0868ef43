import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from evals.statistics.bounds import effective_freedom, score_bound, score_interval
from evals.statistics.estimate import Clusters, Estimate, bell_mccaffrey_freedom, estimate_mean

Pairs = tuple[int, int, int]


def estimate(values: list[float], labels: list[str] | None = None) -> Estimate:
    return estimate_mean(np.array(values, dtype=float), Clusters.of(labels, len(values)))


def ternary(num_won: int, num_lost: int, num: int) -> Estimate:
    return estimate([1.0] * num_won + [-1.0] * num_lost + [0.0] * (num - num_won - num_lost))


@pytest.mark.parametrize("counts", [(12, 2, 14), (0, 9, 87), (40, 20, 160), (3, 0, 50)])
def test_interval_of_binary_pairs_solves_tangos_equation(counts: Pairs) -> None:
    won, lost, num = counts
    for bound in score_interval(ternary(won, lost, num), confidence=0.95):
        # Tango's constrained share of losses, written out from the paper.
        linear = -won - lost + (2 * num - won + lost) * bound
        share = (math.sqrt(linear**2 + 8 * num * lost * bound * (1 - bound)) - linear) / (4 * num)
        error = math.sqrt(num * (2 * share + bound * (1 - bound)))
        assert abs(won - lost - num * bound) / error == pytest.approx(1.959964, abs=1e-5)


def test_interval_of_dense_graded_differences_is_students() -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.2, 4000)
    expected = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert score_interval(estimate(differences.tolist()), confidence=0.95) == pytest.approx(
        (expected.low, expected.high), abs=4e-4
    )


def test_variance_of_clusters_is_that_of_their_means_where_sizes_are_equal() -> None:
    differences = np.random.default_rng(2).normal(0, 0.3, (30, 4))
    labels = [str(number) for number in range(30) for _ in range(4)]
    found = estimate(differences.ravel().tolist(), labels)
    means = differences.mean(axis=1)
    assert found.variance == pytest.approx(means.var(ddof=1) / 30)
    assert found.degrees_of_freedom == pytest.approx(29)
    assert found.num_clusters == 30


def test_degrees_of_freedom_follow_from_the_covariance_of_the_residuals() -> None:
    sizes = np.array([1.0, 7.0, 3.0, 12.0, 2.0])
    num = int(sizes.sum())
    rows = np.zeros((5, num))
    for row, members in enumerate(np.split(np.arange(num), np.cumsum(sizes)[:-1].astype(int))):
        rows[row, members] = 1
        rows[row] = (rows[row] - sizes[row] / num) / math.sqrt(1 - sizes[row] / num)
    covariance = rows @ rows.T
    expected = np.trace(covariance) ** 2 / (covariance**2).sum()
    assert bell_mccaffrey_freedom(sizes) == pytest.approx(expected)
    assert expected < 4


def test_a_few_clusters_that_carry_all_lower_the_freedom() -> None:
    rare = [1.0] * 12 + [0.0] * 188
    labels = [str(number // 4) for number in range(200)]
    spread = estimate(([1.0] + [0.0] * 15) * 12 + [0.0] * 8, labels)
    clumped = estimate(rare, labels)
    assert effective_freedom(clumped) == pytest.approx(3.87, abs=0.01)
    assert effective_freedom(estimate([1.0] * 4 + [0.0] * 196, labels)) == 3
    assert effective_freedom(clumped) < effective_freedom(spread) < spread.degrees_of_freedom


def test_one_sided_bound_is_the_end_of_the_two_sided_interval() -> None:
    found = ternary(9, 4, 80)
    low, high = score_interval(found, confidence=0.9)
    assert score_bound(found, probability=0.95, above=False) == low
    assert score_bound(found, probability=0.95, above=True) == high


def test_graded_bounds_are_never_narrower_than_students() -> None:
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.3):
        found = estimate(np.clip(rng.normal(shift, 0.1, 60), -1, 1).tolist())
        half = t.ppf(0.975, found.degrees_of_freedom) * found.standard_error
        low, high = score_interval(found, confidence=0.95)
        assert low <= found.delta - half + 1e-9
        assert high >= found.delta + half - 1e-9


def test_losses_that_were_not_seen_are_reckoned_with() -> None:
    low, high = score_interval(estimate([0.1] * 30 + [0.0] * 30), confidence=0.95)
    # A question in sixty may lose everything without having been seen.
    assert low < 0.05 - 0.03
    assert high < 0.05 + 0.03
