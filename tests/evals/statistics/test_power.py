import math

import numpy as np
import pytest

from evals.statistics.paired import mcnemar_p_value
from evals.statistics.power import (
    mcnemar_power,
    mean_power,
    num_samples_to_settle,
    planned_design_effect,
)
from tests.evals.statistics.conftest import Compare, pairs


def test_minimum_detectable_effect_equals_the_published_formula(compare: Compare) -> None:
    result = compare(*pairs(won=20, lost=20, both=60))
    by_hand = (1.959964 + 0.841621) * math.sqrt(0.4) / 10
    assert result.minimum_detectable_effect == pytest.approx(by_hand, rel=1e-6)


def test_minimum_detectable_effect_is_never_zero(compare: Compare) -> None:
    for won in (0, 200):
        effect = compare(*pairs(won=won, both=200 - won)).minimum_detectable_effect
        assert 0.02 < effect < 0.04


def test_clusters_raise_the_minimum_detectable_effect(compare: Compare) -> None:
    baseline, variant = pairs(won=40, lost=40, both=120)
    labels = [str(number // 10) for number in range(200)]
    alone = compare(baseline, variant).minimum_detectable_effect
    assert compare(baseline, variant, clusters=labels).minimum_detectable_effect > 2.5 * alone


def test_mcnemar_power_is_the_share_of_all_samples_that_reject() -> None:
    won, lost, num = 0.5, 0.1, 12
    power = 0.0
    for num_won in range(num + 1):
        for num_lost in range(num + 1 - num_won):
            p_value = mcnemar_p_value(np.array([1.0] * num_won + [-1.0] * num_lost + [0.0]))
            if num_won > num_lost and p_value < 0.05:
                ways = math.comb(num, num_won) * math.comb(num - num_won, num_lost)
                tied = num - num_won - num_lost
                power += ways * won**num_won * lost**num_lost * (1 - won - lost) ** tied
    found = mcnemar_power(num, share_won=won, share_lost=lost, confidence=0.95)
    assert found == pytest.approx(power)
    assert mcnemar_power(num, share_won=0, share_lost=0, confidence=0.95) == 0.0


def test_mean_power_is_that_of_the_normal_where_freedom_is_plenty() -> None:
    exact = mean_power(
        delta=2.801585, standard_error=1.0, degrees_of_freedom=math.inf, confidence=0.95
    )
    assert exact == pytest.approx(0.8, abs=1e-6)
    few = mean_power(delta=2.801585, standard_error=1.0, degrees_of_freedom=8, confidence=0.95)
    assert 0.65 < few < 0.75


def test_design_effect_follows_kish() -> None:
    assert planned_design_effect([5] * 10, correlation=0.3) == pytest.approx(1 + 4 * 0.3)
    assert planned_design_effect([1] * 10, correlation=0.3) == 1.0


def test_questions_to_settle_would_settle(compare: Compare) -> None:
    result = compare(*pairs(won=15, lost=9, both=76))
    assert result.verdict == "inconclusive"
    needed = num_samples_to_settle(result)
    assert needed is not None
    power = mcnemar_power(needed, share_won=0.15, share_lost=0.09, confidence=0.95)
    assert power == pytest.approx(0.8, abs=0.03)


def test_a_difference_inside_the_margin_is_settled_as_equivalence(compare: Compare) -> None:
    result = compare(*pairs(won=4, lost=4, both=92))
    needed = num_samples_to_settle(result)
    assert needed is not None
    verdicts = []
    for num in (round(0.8 * needed), round(1.25 * needed)):
        some = round(0.04 * num)
        verdicts.append(compare(*pairs(won=some, lost=some, both=num - 2 * some)).verdict)
    assert verdicts == ["inconclusive", "equivalent"]


def test_what_is_settled_needs_no_more(compare: Compare) -> None:
    result = compare(*pairs(won=30, lost=10, both=60))
    assert num_samples_to_settle(result) is None
    # Adjusted for several tasks it may not stand.
    more = num_samples_to_settle(result, verdict="inconclusive")
    assert more is not None
    assert more > 100


def test_nothing_seen_still_says_how_many_make_it_equivalent(compare: Compare) -> None:
    needed = num_samples_to_settle(compare(*pairs(both=50)))
    assert needed is not None
    assert 50 < needed < 500
