import numpy as np
import pytest

from evals.statistics.proportions import mean_score_interval, wilson_interval


def test_wilson_interval_matches_the_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263, confidence=0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20, confidence=0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_binary_scores_of_single_questions_have_wilsons_interval() -> None:
    scores = [1.0] * 81 + [0.0] * 182
    assert mean_score_interval(scores, confidence=0.95) == pytest.approx(
        wilson_interval(81, 263, confidence=0.95)
    )


def test_copies_widen_no_less_than_their_number_says() -> None:
    scores = np.repeat([1.0] * 15 + [0.0] * 25, 5)
    labels = [str(number // 5) for number in range(200)]
    low, high = mean_score_interval(scores, clusters=labels, confidence=0.95)
    alone = wilson_interval(15, 40, confidence=0.95)
    assert low == pytest.approx(alone[0], abs=0.01)
    assert high == pytest.approx(alone[1], abs=0.01)


def test_a_perfect_score_is_not_certain() -> None:
    labels = [str(number // 10) for number in range(100)]
    low, high = mean_score_interval(np.ones(100), clusters=labels, confidence=0.95)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(wilson_interval(10, 10, confidence=0.95)[0])
