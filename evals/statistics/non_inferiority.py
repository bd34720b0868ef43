"""Has the variant not fallen behind? One-sided, with a margin that was fixed beforehand."""

from collections.abc import Sequence
from typing import NamedTuple

from evals.statistics.bounds import score_bound
from evals.statistics.comparison import PairedComparison
from evals.statistics.estimate import Estimate, pool


class NonInferiority(NamedTuple):
    """passed: whether `lower_bound` (one-sided, of delta) lies above minus `margin`."""

    delta: float
    margin: float
    lower_bound: float
    passed: bool


def judge_non_inferiority(
    estimate: Estimate, *, margin: float, confidence: float
) -> NonInferiority:
    """Non-inferiority of one task (`comparison.estimate`) or of the pooled ones.

    The bound is the score test's at 1 - confidence, one-sided, so a variant that has truly lost
    `margin` passes with at most that chance.
    """
    bound = score_bound(estimate, probability=confidence, above=False)
    return NonInferiority(estimate.delta, margin, bound, bound > -margin)


def pool_comparisons(comparisons: Sequence[PairedComparison]) -> Estimate:
    """The mean difference over tasks of equal weight, whose questions are independent."""
    return pool([comparison.estimate for comparison in comparisons])
