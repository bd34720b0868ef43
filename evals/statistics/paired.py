"""Was the difference real? Two models that answered the same questions, compared pair by pair.

Pure functions over scores between 0 and 1; nothing here knows where the scores came from.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from statsmodels.stats.contingency_tables import mcnemar

from evals.statistics.comparison import PairedComparison, Rule, conclude
from evals.statistics.estimate import TOLERANCE, Clusters, Values, estimate_mean
from evals.statistics.scores import average_epochs
from evals.statistics.sign_flips import sign_flip_p_value

MCNEMAR = "exact McNemar test"


def compare_paired(
    baseline: npt.ArrayLike,
    variant: npt.ArrayLike,
    *,
    clusters: Sequence[str] | None = None,
    confidence: float,
    num_resamples: int,
    seed: int,
    margin: float,
) -> PairedComparison:
    """Compare scores of the same questions in the same order.

    baseline, variant: (n,) or (n, epochs), between 0 and 1; epochs are averaged per question, so
    the sides may have different numbers. clusters: one label per question; questions that share one
    are not independent. Binary scores of single questions are tested by the exact McNemar test,
    others by exchanging the sides of whole clusters at random. The result depends on the arguments
    alone. Errors: `ValueError` for unequal numbers of questions, fewer than two, or scores outside
    0 to 1.
    """
    before, after = average_epochs(baseline), average_epochs(variant)
    if len(before) != len(after):
        raise ValueError(f"scores are not paired: {len(before)} against {len(after)} questions")
    differences = after - before
    # Means of epochs differ in their last bits where they should not differ at all.
    differences[np.abs(differences) < TOLERANCE] = 0.0
    groups = Clusters.of(clusters, len(differences))
    estimate = estimate_mean(differences, groups)
    if groups.are_single and not estimate.is_graded:
        test = mcnemar_p_value(differences), MCNEMAR
    else:
        p_value = permutation_p_value(differences, groups, num_resamples=num_resamples, seed=seed)
        test = p_value, name_permutation(groups)
    return conclude(
        estimate,
        signs=differences,
        clusters=groups,
        scores=(float(before.mean()), float(after.mean())),
        test=test,
        rule=Rule(confidence=confidence, margin=margin, num_resamples=num_resamples, seed=seed),
    )


def mcnemar_p_value(differences: Values) -> float:
    """Two-sided exact McNemar p-value of differences that are -1, 0 or 1.

    The ties cancel; under the null hypothesis wins and losses are a fair coin's (McNemar 1947).
    """
    num_won, num_lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(mcnemar([[0, num_won], [num_lost, 0]], exact=True).pvalue)


def permutation_p_value(
    differences: Values, clusters: Clusters, *, num_resamples: int, seed: int
) -> float:
    """Two-sided p-value of exchanging the two sides of each cluster at random."""
    sums = clusters.sums(differences)
    # A cluster without a difference is the same either way round.
    moving = sums[np.abs(sums) > TOLERANCE]

    def total(signs: Values) -> Values:
        return np.asarray(signs @ moving)

    return sign_flip_p_value(
        total, num_clusters=len(moving), num_resamples=num_resamples, seed=seed
    )


def name_permutation(clusters: Clusters) -> str:
    """The test in words, for reports."""
    unit = "questions" if clusters.are_single else "whole clusters"
    return f"paired permutation test, exchanging {unit}"
