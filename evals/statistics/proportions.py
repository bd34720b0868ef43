"""Intervals of one side's own score; differences have theirs in bounds.py."""

from collections.abc import Sequence

import numpy.typing as npt
from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from evals.statistics.estimate import Clusters, Interval, estimate_mean
from evals.statistics.scores import average_epochs


def wilson_interval(num_correct: float, num_samples: float, *, confidence: float) -> Interval:
    """Wilson's score interval (1927) of a share, for binary scores."""
    low, high = proportion_confint(num_correct, num_samples, 1 - confidence, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def mean_score_interval(
    scores: npt.ArrayLike, *, clusters: Sequence[str] | None = None, confidence: float
) -> Interval:
    """Interval of the mean of scores (n,) or (n, epochs) between 0 and 1.

    Wilson's for binary scores of single questions. Otherwise Wilson's with the number of questions
    that would give the cluster-robust variance seen, and fewer for its degrees of freedom (Korn and
    Graubard 1998; compared with others by Dean and Pagano 2015, Journal of Survey Statistics and
    Methodology 3:484); clusters that all score the same count as one question each.
    """
    values = average_epochs(scores)
    estimate = estimate_mean(values, Clusters.of(clusters, len(values)))
    mean, num = estimate.delta, float(estimate.num_clusters)
    if estimate.variance > 0:
        probability = (1 + confidence) / 2
        shrink = norm.ppf(probability) / t.ppf(probability, estimate.degrees_of_freedom)
        num = mean * (1 - mean) / estimate.variance * float(shrink) ** 2
    return wilson_interval(mean * num, num, confidence=confidence)
