"""Was the difference real? Paired statistics of two models that answered the same questions.

Pure functions over scores between 0 and 1; nothing here knows where the scores came from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap, norm, permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
Interval = tuple[float, float]
Scores = npt.NDArray[np.float64]

POWER = 0.8
# With fewer pairs than this off the commonest difference, the bootstrap sees too little of the
# tails: at 200 pairs of which 1.5 % differ, its 95 % interval covers the truth in 90 % of trials.
MIN_DEVIATING_PAIRS = 10


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Variant against baseline; scores, delta, interval and effect are shares of 1.

    delta: variant_score - baseline_score; interval: of delta, with the given coverage; p_value:
    two-sided; minimum_detectable_effect: smallest true delta found with 80 % power; num_won,
    num_lost and num_tied count questions from the variant's side.
    """

    num_pairs: int
    baseline_score: float
    variant_score: float
    delta: float
    interval: Interval
    p_value: float
    minimum_detectable_effect: float
    num_won: int
    num_lost: int
    num_tied: int
    verdict: Verdict
    confidence: float
    margin: float
    interval_method: str
    test_method: str


def compare_paired(
    baseline: Sequence[bool | float],
    variant: Sequence[bool | float],
    *,
    confidence: float,
    num_resamples: int,
    seed: int,
    margin: float,
) -> PairedComparison:
    """Compare scores of the same questions in the same order.

    Scores that are all 0 or 1 are tested by the exact McNemar test, others by a paired permutation
    test. The result depends on the arguments alone. Errors: `ValueError` for sequences of unequal
    length, fewer than two pairs, or scores outside 0 to 1.
    """
    before, after = np.asarray(baseline, dtype=float), np.asarray(variant, dtype=float)
    _check_scores(before, after)
    differences = after - before
    binary = bool(np.isin(np.concatenate([before, after]), (0.0, 1.0)).all())
    interval, interval_method = difference_interval(
        differences,
        binary=binary,
        confidence=confidence,
        num_resamples=num_resamples,
        rng=np.random.default_rng(seed),
    )
    p_value = (
        mcnemar_p_value(differences)
        if binary
        else permutation_p_value(
            before, after, num_resamples=num_resamples, rng=np.random.default_rng(seed)
        )
    )
    return PairedComparison(
        num_pairs=len(differences),
        baseline_score=float(before.mean()),
        variant_score=float(after.mean()),
        delta=float(differences.mean()),
        interval=interval,
        p_value=p_value,
        minimum_detectable_effect=minimum_detectable_effect(differences, confidence=confidence),
        num_won=int((differences > 0).sum()),
        num_lost=int((differences < 0).sum()),
        num_tied=int((differences == 0).sum()),
        verdict=decide(interval, p_value, confidence=confidence, margin=margin),
        confidence=confidence,
        margin=margin,
        interval_method=interval_method,
        test_method="exact McNemar test" if binary else "paired permutation test",
    )


def decide(interval: Interval, p_value: float, *, confidence: float, margin: float) -> Verdict:
    """The verdict's rule: interval and test have to agree before a difference is claimed.

    better: the interval lies above 0 and p < 1 - confidence; worse: the mirror of it; equivalent:
    the interval lies strictly inside ± margin; inconclusive: everything else.
    """
    low, high = interval
    # Rounded, because 1 - 0.95 comes out a little above 0.05.
    significant = p_value < round(1 - confidence, 12)
    if low > 0 and significant:
        return "better"
    if high < 0 and significant:
        return "worse"
    if -margin < low and high < margin:
        return "equivalent"
    return "inconclusive"


def difference_interval(
    differences: Scores,
    *,
    binary: bool,
    confidence: float,
    num_resamples: int,
    rng: np.random.Generator,
) -> tuple[Interval, str]:
    """Confidence interval of the mean paired difference, and the name of its method.

    Percentile bootstrap over questions (Efron 1979), unless hardly any pair is off the commonest
    difference: there its resamples are nearly all alike, and bounds from Wilson's interval, which
    know that rare outcomes may not have been seen yet, take its place.
    """
    _, counts = np.unique(differences, return_counts=True)
    num_deviating = len(differences) - int(counts.max())
    if binary and num_deviating < MIN_DEVIATING_PAIRS:
        interval = square_and_add_interval(
            num_won=int((differences > 0).sum()),
            num_lost=int((differences < 0).sum()),
            num_pairs=len(differences),
            confidence=confidence,
        )
        return interval, "Wilson intervals combined by square-and-add"
    if num_deviating == 0:
        interval = constant_interval(
            float(differences[0]), num_pairs=len(differences), confidence=confidence
        )
        return interval, "Wilson bound for a constant difference"
    result = bootstrap(
        (differences,),
        np.mean,
        n_resamples=num_resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        # Bounds the resampled array at 1000 times the pairs, whatever num_resamples is.
        batch=1000,
        rng=rng,
    )
    low, high = result.confidence_interval
    return (float(low), float(high)), "percentile bootstrap of the paired differences"


def square_and_add_interval(
    *, num_won: int, num_lost: int, num_pairs: int, confidence: float
) -> Interval:
    """Interval of (won - lost) / pairs from the Wilson intervals of both shares.

    Newcombe's square-and-add (1998, Statistics in Medicine 17:2635, method 10; in general form Zou
    and Donner 2008, Statistics in Medicine 27:1693). Taking the shares as uncorrelated, though both
    come from the same questions, makes it slightly wide where they are rare.
    """
    won, lost = num_won / num_pairs, num_lost / num_pairs
    low_won, high_won = wilson_interval(num_won, num_pairs, confidence=confidence)
    low_lost, high_lost = wilson_interval(num_lost, num_pairs, confidence=confidence)
    below = math.hypot(won - low_won, high_lost - lost)
    above = math.hypot(high_won - won, lost - low_lost)
    return max(-1.0, won - lost - below), min(1.0, won - lost + above)


def constant_interval(difference: float, *, num_pairs: int, confidence: float) -> Interval:
    """Interval of the mean where every pair showed the same `difference`.

    Wilson's lower bound for n of n says which share of all questions shows it at least; the rest
    may lie anywhere from -1 to 1.
    """
    share, _ = wilson_interval(num_pairs, num_pairs, confidence=confidence)
    return share * difference - (1 - share), share * difference + (1 - share)


def wilson_interval(num_correct: float, num_samples: int, *, confidence: float) -> Interval:
    """Wilson's score interval (1927) of a share, for binary scores."""
    low, high = proportion_confint(num_correct, num_samples, 1 - confidence, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def mcnemar_p_value(differences: Scores) -> float:
    """Two-sided exact McNemar p-value of differences that are -1, 0 or 1.

    The ties cancel; under the null hypothesis wins and losses are a fair coin's (McNemar 1947).
    """
    num_won, num_lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(mcnemar([[0, num_won], [num_lost, 0]], exact=True).pvalue)


def permutation_p_value(
    baseline: Scores, variant: Scores, *, num_resamples: int, rng: np.random.Generator
) -> float:
    """Two-sided p-value of swapping the two scores of each question at random."""

    def mean_difference(first: Scores, second: Scores, axis: int) -> Scores:
        return np.asarray(np.mean(second - first, axis=axis))

    result = permutation_test(
        (baseline, variant),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_resamples,
        batch=1000,
        rng=rng,
    )
    return float(result.pvalue)


def minimum_detectable_effect(differences: Scores, *, confidence: float) -> float:
    """Smallest true delta that a test at this size finds with 80 % power, as a share of 1.

    (z_{α/2} + z_β) · sd(d) / √n for paired differences d: Miller 2024, "Adding Error Bars to
    Evals", arXiv 2411.00640, section 5. Too few differing pairs make sd(d) an illusion of
    precision, so it is never taken below √(u(1-u)), u being Wilson's upper bound for a share that
    was seen in 0 of n pairs.
    """
    num_pairs = len(differences)
    _, unseen = wilson_interval(0, num_pairs, confidence=confidence)
    spread = max(float(differences.std(ddof=1)), math.sqrt(unseen * (1 - unseen)))
    z = norm.ppf((1 + confidence) / 2) + norm.ppf(POWER)
    return float(z * spread / math.sqrt(num_pairs))


def _check_scores(baseline: Scores, variant: Scores) -> None:
    if baseline.shape != variant.shape or baseline.ndim != 1:
        raise ValueError(f"scores are not paired: {baseline.shape} against {variant.shape}")
    if len(baseline) < 2:
        raise ValueError("a paired comparison needs at least two questions")
    scores = np.concatenate([baseline, variant])
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores have to lie between 0 and 1")
