import json
from pathlib import Path
from typing import Any

from data.training_log import Point
from tests.train.tiny_training import build_trainer, train, train_until
from train.report.history import (
    num_seconds,
    resumed_after,
    speeds,
    split_sessions,
    trailing_mean,
)


def step_log(step: int, seen: float, runtime: float, own_tokens: float) -> dict[str, float]:
    """As the trainer writes it, rounded as it rounds."""
    return {
        "step": step,
        "loss": 1.0,
        "num_input_tokens_seen": seen,
        "train_runtime": round(runtime, 4),
        "train_tokens_per_second": round(own_tokens / runtime, 3),
    }


def test_the_mean_is_over_the_steps_before() -> None:
    points = [Point(step, float(step)) for step in (1, 2, 3, 4)]
    assert trailing_mean(points, 3) == [Point(1, 1.0), Point(2, 1.5), Point(3, 2.0), Point(4, 3.0)]


def test_a_resumed_run_is_seen_even_where_its_clock_is_past_the_old_one() -> None:
    # The first process ends at 2.0 s; the second takes 5 s for its first step.
    history = [
        step_log(1, 100, 1.0, 100),
        step_log(2, 180, 2.0, 180),
        step_log(3, 280, 5.0, 100),
        step_log(4, 380, 6.0, 200),
    ]
    assert resumed_after(history) == [2]
    assert [len(session) for session in split_sessions(history)] == [2, 2]
    assert num_seconds(history) == 8.0
    assert [round(point.value) for point in speeds(history)] == [100, 80, 20, 100]


def test_long_unbroken_runs_are_one_session() -> None:
    seconds, history = 0.0, []
    for step in range(1, 5000):
        seconds += 7.77777
        history.append(step_log(step, 4000 * step, seconds, 4000 * step))
    assert resumed_after(history) == []


def test_the_time_of_a_validation_is_taken_out_of_the_speed() -> None:
    history: list[dict[str, Any]] = [
        step_log(1, 100, 1.0, 100),
        {"step": 1, "eval_loss": 1.0, "eval_runtime": 3.0},
        step_log(2, 200, 5.0, 200),
        step_log(3, 300, 6.0, 300),
    ]
    assert [round(point.value) for point in speeds(history)] == [100, 100, 100]


def test_a_real_training_resumed_twice(tiny_checkpoint: Path, tmp_path: Path) -> None:
    train_until(5, build_trainer(tmp_path, tiny_checkpoint))
    train_until(11, build_trainer(tmp_path, tiny_checkpoint))
    trainer = build_trainer(tmp_path, tiny_checkpoint)
    train(trainer)
    history = json.loads(json.dumps(trainer.state.log_history))
    assert resumed_after(history) == [4, 8]
    assert [point.step for point in speeds(history)] == list(range(1, 13))
    assert all(point.value > 0 for point in speeds(history))
    assert 0 < num_seconds(history) < 60


def test_no_log_tells_nothing() -> None:
    assert (resumed_after([]), speeds([]), num_seconds([])) == ([], [], 0)
