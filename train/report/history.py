"""What a trainer's `log_history` tells: curves, the speed of each step, where it was resumed."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from data.training_log import History, Log, Point


def trailing_mean(points: Sequence[Point], window: int) -> list[Point]:
    """For each point the mean of the last `window` ones, of fewer at the beginning."""
    return [
        Point(one.step, fmean(p.value for p in points[max(0, number - window + 1) : number + 1]))
        for number, one in enumerate(points)
    ]


def split_sessions(history: History) -> list[list[Log]]:
    """The log of each process that has trained, in order.

    A process counts its tokens and seconds from where it began: its log tells, by speed and time,
    how many tokens lay behind it when it did.
    """
    sessions: list[list[Log]] = []
    before = math.nan
    for log in history:
        if "train_tokens_per_second" in log:
            own = log["train_tokens_per_second"] * log["train_runtime"]
            behind = log["num_input_tokens_seen"] - own
            # Rounding moves it by part of a step's tokens, a new process by a step's at least.
            if not sessions or abs(behind - before) > _step_tokens(sessions[-1], log) / 2:
                sessions.append([])
            before = behind
        if not sessions:
            sessions.append([])
        sessions[-1].append(log)
    return sessions


def resumed_after(history: History) -> list[int]:
    """The steps after which another process has gone on."""
    return [int(session[0]["step"]) - 1 for session in split_sessions(history)[1:]]


def num_seconds(history: History) -> float:
    """Time in the training loop over all processes, validation and checkpoints included."""
    return sum(
        max((log.get("train_runtime", 0.0) for log in session), default=0.0)
        for session in split_sessions(history)
    )


def speeds(history: History) -> list[Point]:
    """Tokens a second of each step; the time of a validation before it is taken out."""
    return [point for session in split_sessions(history) for point in _session_speeds(session)]


def _step_tokens(session: Sequence[Log], log: Log) -> float:
    """Tokens of the step that `log` tells of, after those of the session so far."""
    seen = max((one.get("num_input_tokens_seen", 0.0) for one in session), default=0.0)
    return log["num_input_tokens_seen"] - seen


def _session_speeds(session: Sequence[Log]) -> Iterator[Point]:
    tokens, seconds, validating = None, 0.0, 0.0
    for log in session:
        validating += log.get("eval_runtime", 0.0)
        if "loss" not in log or "train_runtime" not in log:
            continue
        if tokens is None:
            own = log["train_tokens_per_second"] * log["train_runtime"]
            tokens = log["num_input_tokens_seen"] - own
        num_tokens = log["num_input_tokens_seen"] - tokens
        took = log["train_runtime"] - seconds - validating
        if took > 0:
            yield Point(int(log["step"]), num_tokens / took)
        tokens, seconds, validating = log["num_input_tokens_seen"], log["train_runtime"], 0.0
