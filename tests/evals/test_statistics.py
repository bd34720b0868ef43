import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from evals.statistics import (
    PairedComparison,
    compare_paired,
    constant_interval,
    decide,
    mcnemar_p_value,
    minimum_detectable_effect,
    square_and_add_interval,
    wilson_interval,
)

Pairs = tuple[list[bool], list[bool]]


def pairs(*, won: int = 0, lost: int = 0, both: int = 0, neither: int = 0) -> Pairs:
    baseline = [False] * won + [True] * lost + [True] * both + [False] * neither
    variant = [True] * won + [False] * lost + [True] * both + [False] * neither
    return baseline, variant


def compare(
    baseline: list[bool] | list[float], variant: list[bool] | list[float], *, seed: int = 17
) -> PairedComparison:
    return compare_paired(
        baseline, variant, confidence=0.95, num_resamples=2000, seed=seed, margin=0.03
    )


def test_scores_and_counts_are_those_of_the_pairs() -> None:
    result = compare(*pairs(won=30, lost=10, both=40, neither=20))
    assert (result.num_pairs, result.num_won, result.num_lost, result.num_tied) == (100, 30, 10, 60)
    assert result.baseline_score == pytest.approx(0.5)
    assert result.variant_score == pytest.approx(0.7)
    assert result.delta == pytest.approx(0.2)
    assert result.verdict == "better"


def test_mcnemar_equals_the_binomial_sum_by_hand() -> None:
    # Twice the chance of 2 heads or fewer in 12 fair throws: 2 * (1 + 12 + 66) / 4096.
    differences = np.array([1.0] * 10 + [-1.0] * 2 + [0.0] * 8)
    assert mcnemar_p_value(differences) == pytest.approx(2 * 79 / 4096)


def test_mcnemar_without_a_difference_is_one() -> None:
    assert mcnemar_p_value(np.zeros(50)) == 1.0


def test_wilson_interval_matches_the_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263, confidence=0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20, confidence=0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_square_and_add_follows_its_formula() -> None:
    low, high = square_and_add_interval(num_won=2, num_lost=1, num_pairs=50, confidence=0.95)
    low_won, high_won = wilson_interval(2, 50, confidence=0.95)
    low_lost, high_lost = wilson_interval(1, 50, confidence=0.95)
    assert low == pytest.approx(0.02 - math.sqrt((0.04 - low_won) ** 2 + (high_lost - 0.02) ** 2))
    assert high == pytest.approx(0.02 + math.sqrt((high_won - 0.04) ** 2 + (0.02 - low_lost) ** 2))


def test_no_difference_at_all_still_has_an_interval_of_some_width() -> None:
    result = compare(*pairs(both=60, neither=40))
    low, high = result.interval
    # z² / (n + z²) with z = 1.96: what may be there, though it was not seen in 100 pairs.
    assert (low, high) == pytest.approx((-0.036995, 0.036995), abs=1e-5)
    assert result.p_value == 1.0
    assert result.verdict == "inconclusive"
    assert compare(*pairs(both=120, neither=80)).verdict == "equivalent"


def test_winning_every_question_is_better_and_stays_within_one() -> None:
    result = compare(*pairs(won=30))
    assert result.delta == 1.0
    assert 0.8 < result.interval[0] < 1.0
    assert result.interval[1] == 1.0
    assert result.verdict == "better"


def test_few_differing_pairs_do_not_pass_for_equivalence() -> None:
    # The bootstrap would say 0 to 2.4 points here, because it cannot draw what was not seen.
    result = compare(*pairs(won=1, both=124))
    assert result.interval_method == "Wilson intervals combined by square-and-add"
    assert result.interval[1] > 0.03
    assert result.verdict == "inconclusive"


def test_exchanging_the_sides_mirrors_everything() -> None:
    baseline, variant = pairs(won=40, lost=12, both=30, neither=18)
    forth, back = compare(baseline, variant), compare(variant, baseline)
    assert (forth.verdict, back.verdict) == ("better", "worse")
    assert back.delta == pytest.approx(-forth.delta)
    assert back.p_value == forth.p_value
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]), abs=0.02)
    assert (back.num_won, back.num_lost) == (forth.num_lost, forth.num_won)


@pytest.mark.parametrize(
    ("interval", "p_value", "verdict"),
    [
        ((0.001, 0.2), 0.049, "better"),
        ((0.001, 0.2), 0.05, "inconclusive"),
        ((0.0, 0.2), 0.001, "inconclusive"),
        ((-0.2, -0.001), 0.049, "worse"),
        ((-0.2, -0.001), 0.2, "inconclusive"),
        ((-0.029, 0.029), 0.9, "equivalent"),
        ((-0.03, 0.029), 0.9, "inconclusive"),
        ((-0.029, 0.03), 0.9, "inconclusive"),
        ((0.001, 0.02), 0.01, "better"),
        ((0.001, 0.02), 0.2, "equivalent"),
    ],
)
def test_verdict_follows_its_rule(
    interval: tuple[float, float], p_value: float, verdict: str
) -> None:
    assert decide(interval, p_value, confidence=0.95, margin=0.03) == verdict


def test_minimum_detectable_effect_equals_the_published_formula() -> None:
    differences = np.array([1.0] * 20 + [-1.0] * 20 + [0.0] * 60)
    by_hand = (1.959964 + 0.841621) * math.sqrt(40 / 99) / 10
    assert minimum_detectable_effect(differences, confidence=0.95) == pytest.approx(
        by_hand, rel=1e-6
    )


def test_minimum_detectable_effect_is_never_zero() -> None:
    for differences in (np.zeros(200), np.ones(200)):
        assert 0.02 < minimum_detectable_effect(differences, confidence=0.95) < 0.04


def test_effect_of_that_size_is_found_in_about_80_percent() -> None:
    rng = np.random.default_rng(3)
    effect = minimum_detectable_effect(draw(rng, 200, won=0.2, lost=0.1), confidence=0.95)
    found = 0
    for _ in range(300):
        sample = draw(rng, 200, won=0.15 + effect / 2, lost=0.15 - effect / 2)
        found += mcnemar_p_value(sample) < 0.05
    assert 0.7 < found / 300 < 0.9


def test_graded_scores_are_tested_by_permutation() -> None:
    rng = np.random.default_rng(5)
    baseline = rng.uniform(0.2, 0.6, 80)
    better = compare(baseline.tolist(), (baseline + rng.uniform(-0.1, 0.3, 80)).tolist())
    assert better.test_method == "paired permutation test"
    assert better.p_value < 0.01
    assert better.verdict == "better"
    same = compare(baseline.tolist(), rng.permuted(baseline).tolist())
    assert same.p_value > 0.05
    assert same.verdict in ("inconclusive", "equivalent")


def test_permutation_p_value_equals_full_enumeration() -> None:
    # Differences 0.5, 0.4, 0.3 and 0.1: of the 16 sign patterns only all-plus and all-minus are
    # as far from zero as what was seen.
    result = compare([0.1, 0.2, 0.3, 0.4], [0.6, 0.6, 0.6, 0.5])
    assert result.p_value == pytest.approx(2 / 16)


def test_graded_scores_with_one_constant_difference_have_a_wide_interval() -> None:
    result = compare([0.25] * 40, [0.5] * 40)
    assert result.interval_method == "Wilson bound for a constant difference"
    low, high = result.interval
    assert (low, high) == constant_interval(0.25, num_pairs=40, confidence=0.95)
    assert low < 0.25 - 0.08
    assert high > 0.25 + 0.05


def test_same_arguments_give_the_same_result_to_the_last_bit() -> None:
    rng = np.random.default_rng(7)
    baseline, variant = rng.uniform(size=(2, 60)).tolist()
    assert compare(baseline, variant) == compare(baseline, variant)
    assert compare(baseline, variant) != compare(baseline, variant, seed=18)


@pytest.mark.parametrize(
    ("baseline", "variant"),
    [
        ([True], [True]),
        ([True, False], [True]),
        ([0.5, 2.0], [0.5, 0.5]),
        ([0.5, math.nan], [0, 1]),
    ],
)
def test_unusable_scores_are_refused(baseline: list[float], variant: list[float]) -> None:
    with pytest.raises(ValueError, match=r"scores|questions"):
        compare(baseline, variant)


def draw(
    rng: np.random.Generator, num_pairs: int, *, won: float, lost: float
) -> npt.NDArray[np.float64]:
    """Differences of `num_pairs` questions with these chances of a win and of a loss."""
    return rng.choice([1.0, -1.0, 0.0], p=[won, lost, 1 - won - lost], size=num_pairs)


def simulate(
    judge: Callable[[PairedComparison], bool], *, won: float, lost: float, num_trials: int
) -> float:
    """Share of simulated evaluations of 100 questions for which `judge` holds."""
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(num_trials):
        differences = draw(rng, 100, won=won, lost=lost)
        hits += judge(
            compare_paired(
                (differences < 0).tolist(),
                (differences > 0).tolist(),
                confidence=0.95,
                num_resamples=1000,
                seed=trial,
                margin=0.03,
            )
        )
    return hits / num_trials


def test_equal_models_are_rarely_told_apart() -> None:
    claimed = simulate(
        lambda result: result.verdict in ("better", "worse"), won=0.2, lost=0.2, num_trials=1000
    )
    # 5 % in all, with three standard errors of 1000 trials on top; the exact test claims less.
    assert claimed <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("won", "lost"), [(0.3, 0.1), (0.02, 0.01)])
def test_interval_covers_the_true_difference(won: float, lost: float) -> None:
    covered = simulate(
        lambda result: result.interval[0] <= won - lost <= result.interval[1],
        won=won,
        lost=lost,
        num_trials=1000,
    )
    # Rarely differing models get Wilson's interval, which may cover more, never less.
    assert 0.93 <= covered <= (0.97 if won > 0.1 else 1.0)
