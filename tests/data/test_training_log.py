import math
from itertools import pairwise

import pytest

from data.training_log import Point, of_training, series, thin


def test_values_that_are_not_finite_or_not_there_are_left_out() -> None:
    history = [
        {"step": 1, "loss": 2.0},
        {"step": 1, "eval_loss": 5.0},
        {"step": 2, "loss": math.nan},
        {"step": 3, "loss": math.inf},
        {"step": 4, "loss": 1.0},
    ]
    assert series(history, "loss") == [Point(1, 2.0), Point(4, 1.0)]
    assert series(history, "grad_norm") == []


def test_what_is_logged_after_the_trainers_summary_is_left_out() -> None:
    history = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0},
        {"step": 2, "train_loss": 1.5},
        {"step": 2, "eval_loss": 0.9},
    ]
    assert of_training(history) == history[:2]


def test_thinning_keeps_the_ends_of_every_stretch() -> None:
    points = [Point(step, 1.0) for step in range(1, 10_001)]
    points[5012] = Point(5013, 99.0)
    points[7026] = Point(7027, -3.0)
    kept = thin(points, 400)
    assert len(kept) <= 400
    assert Point(5013, 99.0) in kept
    assert Point(7027, -3.0) in kept
    assert kept == sorted(kept)
    assert thin(points[:400], 400) == points[:400]
    assert thin(points, 400)[0].step == 1
    assert thin([], 400) == []


@pytest.mark.parametrize("num", [401, 799, 800, 801])
def test_thinning_loses_no_stretch(num: int) -> None:
    steps = [point.step for point in thin([Point(n, float(n)) for n in range(num)], 400)]
    assert max(later - one for one, later in pairwise(steps)) <= 4
    assert steps[-1] == num - 1
