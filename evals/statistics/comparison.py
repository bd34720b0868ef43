"""What a paired comparison finds, whatever the statistic was: means of scores, or macro-F1."""

from dataclasses import dataclass

from configs.evaluation_schema import Verdict
from evals.statistics.bounds import name_interval, score_interval
from evals.statistics.estimate import Clusters, Estimate, Interval, Values
from evals.statistics.power import minimum_detectable_effect
from evals.statistics.verdict import decide


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Variant against baseline; scores, delta, interval, error and effect are shares of 1.

    delta: variant_score - baseline_score; interval: of delta, with the given coverage;
    standard_error: of delta, robust to clusters; p_value: two-sided; minimum_detectable_effect:
    smallest true delta found with 80 % power; num_won, num_lost and num_tied count questions from
    the variant's side; estimate: what other bounds of delta are made from.
    """

    num_pairs: int
    num_clusters: int
    baseline_score: float
    variant_score: float
    delta: float
    interval: Interval
    standard_error: float
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
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a comparison is made: coverage of the interval, margin of equivalence, random flips."""

    confidence: float
    margin: float
    num_resamples: int
    seed: int


def conclude(
    estimate: Estimate,
    *,
    signs: Values,
    clusters: Clusters,
    scores: tuple[float, float],
    test: tuple[float, str],
    rule: Rule,
) -> PairedComparison:
    """The comparison out of its parts.

    signs: (n,) positive where the variant won the question; scores: of baseline and variant; test:
    p-value and the method's name.
    """
    interval = score_interval(estimate, confidence=rule.confidence)
    p_value, test_method = test
    return PairedComparison(
        num_pairs=len(signs),
        num_clusters=len(clusters.sizes),
        baseline_score=scores[0],
        variant_score=scores[1],
        delta=estimate.delta,
        interval=interval,
        standard_error=estimate.standard_error,
        p_value=p_value,
        minimum_detectable_effect=minimum_detectable_effect(estimate, confidence=rule.confidence),
        num_won=int((signs > 0).sum()),
        num_lost=int((signs < 0).sum()),
        num_tied=int((signs == 0).sum()),
        verdict=decide(interval, p_value, confidence=rule.confidence, margin=rule.margin),
        confidence=rule.confidence,
        margin=rule.margin,
        interval_method=name_interval(estimate),
        test_method=test_method,
        estimate=estimate,
    )
