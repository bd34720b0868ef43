"""What a number of questions can find, before they are asked and after."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom, nct, norm, t

from configs.evaluation_schema import Verdict
from evals.statistics.estimate import Estimate
from evals.statistics.proportions import wilson_interval

if TYPE_CHECKING:  # a comparison holds its detectable effect, which is told here
    from evals.statistics.comparison import PairedComparison

POWER = 0.8


def minimum_detectable_effect(estimate: Estimate, *, confidence: float) -> float:
    """Smallest true delta that a test at this size finds with 80 % power, as a share of 1.

    (z_{α/2} + z_β) · SE of the paired differences: Miller 2024, "Adding Error Bars to Evals",
    arXiv 2411.00640, section 5, here with the cluster-robust SE and Student's t for its degrees of
    freedom. Too few differing questions make the SE an illusion of precision, so it is never taken
    below √(u(1-u)/k), u being Wilson's upper bound for a share that was seen in 0 of k clusters.
    """
    quantiles = _quantile(estimate, (1 + confidence) / 2) + _quantile(estimate, POWER)
    return quantiles * _cautious_error(estimate, confidence)


def num_samples_to_settle(
    comparison: "PairedComparison", *, verdict: Verdict | None = None
) -> int | None:
    """Questions in all with which an inconclusive comparison would probably be settled.

    verdict: where it is not the comparison's own (p-values adjusted for several tasks). The fewer
    of two numbers: with n · ((z_{α/2} + z_β) · SE / delta)² a true difference as large as that seen
    would be found with 80 % power (Miller 2024, section 5); with
    n · (z_{α/2} · SE / (margin - |delta|))² the interval would lie inside ± margin, where delta
    does. Spread and sizes of clusters are taken as they are. None where the verdict stands.
    """
    if (verdict or comparison.verdict) != "inconclusive":
        return None
    error = _cautious_error(comparison.estimate, comparison.confidence)
    level, power = norm.ppf((1 + comparison.confidence) / 2), norm.ppf(POWER)
    seen, margin = abs(comparison.delta), comparison.margin
    ratios = []
    if seen > 0:
        ratios.append((level + power) * error / seen)
    if seen < margin:
        ratios.append(level * error / (margin - seen))
    more = math.ceil(comparison.num_pairs * float(min(ratios)) ** 2)
    return max(comparison.num_pairs + 1, more)


def mcnemar_power(
    num_pairs: int, *, share_won: float, share_lost: float, confidence: float
) -> float:
    """Chance that the exact McNemar test finds the variant better, binary scores, single questions.

    Exact and unconditional: the sum over all numbers m of differing questions, binomial, of the
    chance that so many of m are won that the test rejects (Miettinen 1968, Biometrics 24:339;
    Lachenbruch 1992, Statistics in Medicine 11:1521).
    """
    differing = share_won + share_lost
    if differing <= 0:
        return 0.0
    numbers = np.arange(num_pairs + 1)
    # The smallest number of wins whose upper tail, of a fair coin, is at most half the level.
    needed = binom.isf((1 - confidence) / 2, numbers, 0.5) + 1
    found = binom.sf(needed - 1, numbers, share_won / differing)
    return float((binom.pmf(numbers, num_pairs, differing) * found).sum())


def mean_power(
    *, delta: float, standard_error: float, degrees_of_freedom: float, confidence: float
) -> float:
    """Chance that a two-sided t test finds a true `delta` above 0, for graded or clustered scores.

    standard_error: √(design effect · variance of one difference / n), see `planned_design_effect`.
    """
    quantile = t.ppf((1 + confidence) / 2, degrees_of_freedom)
    shift = delta / standard_error
    if math.isinf(degrees_of_freedom):
        return float(norm.sf(quantile - shift))
    return float(nct.sf(quantile, degrees_of_freedom, shift))


def planned_design_effect(sizes: Sequence[int], *, correlation: float) -> float:
    """1 + (Σ size² / Σ size - 1) · correlation within clusters (Kish 1965, Survey Sampling)."""
    weighted = sum(size * size for size in sizes) / sum(sizes)
    return 1 + (weighted - 1) * correlation


def _quantile(estimate: Estimate, probability: float) -> float:
    return float(t.ppf(probability, estimate.degrees_of_freedom))


def _cautious_error(estimate: Estimate, confidence: float) -> float:
    num = estimate.num_clusters
    _, unseen = wilson_interval(0, num, confidence=confidence)
    return max(estimate.standard_error, math.sqrt(unseen * (1 - unseen) / num))
