import math

import numpy as np
import pytest

from evals.statistics.paired import mcnemar_p_value
from tests.evals.statistics.conftest import Compare, pairs


def test_scores_and_counts_are_those_of_the_pairs(compare: Compare) -> None:
    result = compare(*pairs(won=30, lost=10, both=40, neither=20))
    assert (result.num_pairs, result.num_clusters) == (100, 100)
    assert (result.num_won, result.num_lost, result.num_tied) == (30, 10, 60)
    assert result.baseline_score == pytest.approx(0.5)
    assert result.variant_score == pytest.approx(0.7)
    assert result.delta == pytest.approx(0.2)
    assert result.standard_error == pytest.approx(math.sqrt((0.4 - 0.04) / 100))
    assert result.verdict == "better"
    assert (result.interval_method, result.test_method) == (
        "Tango's score interval",
        "exact McNemar test",
    )


def test_mcnemar_equals_the_binomial_sum_by_hand() -> None:
    # Twice the chance of 2 heads or fewer in 12 fair throws: 2 * (1 + 12 + 66) / 4096.
    differences = np.array([1.0] * 10 + [-1.0] * 2 + [0.0] * 8)
    assert mcnemar_p_value(differences) == pytest.approx(2 * 79 / 4096)


def test_mcnemar_without_a_difference_is_one() -> None:
    assert mcnemar_p_value(np.zeros(50)) == 1.0


def test_no_difference_at_all_still_has_an_interval_of_some_width(compare: Compare) -> None:
    result = compare(*pairs(both=60, neither=40))
    # z² / (n + z²) with z = 1.96: what may be there, though it was not seen in 100 pairs.
    assert result.interval == pytest.approx((-0.036995, 0.036995), abs=1e-5)
    assert result.p_value == 1.0
    assert result.verdict == "inconclusive"
    assert compare(*pairs(both=120, neither=80)).verdict == "equivalent"


def test_winning_every_question_is_better_and_stays_within_one(compare: Compare) -> None:
    result = compare(*pairs(won=30))
    assert result.delta == 1.0
    assert 0.7 < result.interval[0] < 1.0
    assert result.interval[1] == 1.0
    assert result.verdict == "better"


def test_exchanging_the_sides_mirrors_everything(compare: Compare) -> None:
    rng = np.random.default_rng(2)
    labels = [str(number // 3) for number in range(100)]
    graded = rng.uniform(size=(2, 100)).tolist()
    for baseline, variant in (pairs(won=40, lost=12, both=30, neither=18), graded):
        for clusters in (None, labels):
            forth = compare(baseline, variant, clusters=clusters)
            back = compare(variant, baseline, clusters=clusters)
            assert back.delta == pytest.approx(-forth.delta)
            assert back.p_value == forth.p_value
            assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]))
            assert (back.num_won, back.num_lost) == (forth.num_lost, forth.num_won)


def test_epochs_are_averaged_and_may_differ_in_number(compare: Compare) -> None:
    rng = np.random.default_rng(3)
    once = rng.integers(0, 2, 60).astype(float)
    thrice = rng.integers(0, 2, (60, 3)).astype(float)
    result = compare(once, thrice)
    assert result.num_pairs == 60
    assert result.delta == pytest.approx((thrice.mean(axis=1) - once).mean())
    assert result == compare(once[:, None], thrice)
    assert "permutation" in result.test_method


def test_epochs_that_all_agree_leave_no_difference(compare: Compare) -> None:
    result = compare(np.full((50, 3), 0.1), np.full((50, 7), 0.1))
    assert (result.num_won, result.num_lost, result.delta) == (0, 0, 0.0)


def test_copies_of_a_question_add_no_certainty(compare: Compare) -> None:
    baseline, variant = pairs(won=12, lost=3, both=25)
    alone = compare(baseline, variant, clusters=[str(number) for number in range(40)])
    copied = [np.repeat(side, 5) for side in (baseline, variant)]
    clustered = compare(*copied, clusters=[str(number // 5) for number in range(200)])
    naive = compare(*copied)
    assert (clustered.num_pairs, clustered.num_clusters) == (200, 40)
    assert clustered.standard_error == pytest.approx(
        alone.standard_error * math.sqrt(40 / 39), rel=1e-6
    )
    assert clustered.standard_error > 2 * naive.standard_error
    # Exchanging whole clusters is the fair coin of McNemar's test again, but for the drawing.
    assert clustered.p_value == pytest.approx(alone.p_value, abs=0.02)
    assert clustered.p_value > 100 * naive.p_value
    assert clustered.test_method.endswith("exchanging whole clusters")


def test_order_of_questions_and_names_of_clusters_do_not_matter(compare: Compare) -> None:
    rng = np.random.default_rng(4)
    baseline, variant = rng.integers(0, 2, (2, 90)).astype(float)
    labels = np.array([f"document {number // 4}" for number in range(90)])
    order = rng.permutation(90)
    straight = compare(baseline, variant, clusters=labels.tolist())
    mixed = compare(baseline[order], variant[order], clusters=labels[order].tolist())
    assert mixed.interval == pytest.approx(straight.interval)
    assert mixed.standard_error == pytest.approx(straight.standard_error)


def test_one_document_alone_proves_nothing(compare: Compare) -> None:
    result = compare(*pairs(won=20, both=20), clusters=["same"] * 40)
    assert result.interval[0] < -0.3
    assert result.p_value == 1.0
    assert result.verdict == "inconclusive"


def test_graded_scores_are_tested_by_permutation(compare: Compare) -> None:
    rng = np.random.default_rng(5)
    baseline = rng.uniform(0.2, 0.6, 80)
    better = compare(baseline, baseline + rng.uniform(-0.1, 0.3, 80))
    assert better.test_method == "paired permutation test, exchanging questions"
    assert better.p_value < 0.01
    assert better.verdict == "better"
    same = compare(baseline, rng.permuted(baseline))
    assert same.p_value > 0.05
    assert same.verdict in ("inconclusive", "equivalent")


def test_permutation_p_value_equals_full_enumeration(compare: Compare) -> None:
    # Differences 0.5, 0.4, 0.3 and 0.1: of the 16 sign patterns only all-plus and all-minus are
    # as far from zero as what was seen.
    assert compare([0.1, 0.2, 0.3, 0.4], [0.6, 0.6, 0.6, 0.5]).p_value == pytest.approx(2 / 16)


def test_graded_scores_with_one_constant_difference_have_a_wide_interval(compare: Compare) -> None:
    low, high = compare([0.25] * 40, [0.5] * 40).interval
    assert low < 0.25 - 0.08
    assert high > 0.25 + 0.05


def test_same_arguments_give_the_same_result_to_the_last_bit(compare: Compare) -> None:
    rng = np.random.default_rng(7)
    baseline, variant = rng.uniform(size=(2, 60))
    assert compare(baseline, variant) == compare(baseline, variant)
    assert compare(baseline, variant).p_value != compare(baseline, variant, seed=18).p_value


@pytest.mark.parametrize(
    ("baseline", "variant"),
    [
        ([1.0], [1.0]),
        ([1.0, 0.0], [1.0]),
        ([0.5, 2.0], [0.5, 0.5]),
        ([0.5, math.nan], [0, 1]),
        ([[[1.0]], [[0.0]]], [0, 1]),
        ([[], []], [0, 1]),
    ],
)
def test_unusable_scores_are_refused(
    compare: Compare, baseline: list[float], variant: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"scores|questions"):
        compare(baseline, variant)


def test_a_label_is_needed_for_each_question(compare: Compare) -> None:
    with pytest.raises(ValueError, match="2 questions have 1 cluster labels"):
        compare([0.0, 1.0], [1.0, 1.0], clusters=["a"])
