"""Stops a training that can come to nothing, at the step and with the rows that show it."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.errors import UserError

WINDOW_STEPS = 10
MAX_ROWS_NAMED = 8


class StepLoss(NamedTuple):
    """The training loss of one optimizer step; steps count from 1."""

    step: int
    loss: float


class LossWatch(TrainerCallback):
    """Raises `UserError` at a loss or gradient norm that is not finite, and at an exploding loss.

    The trainer logs before it validates and saves, so that no checkpoint holds the bad step.
    rows_of_step: a short description of each row of a step; max_loss_ratio: as in `TrainConfig`.
    """

    def __init__(
        self, rows_of_step: Callable[[int], Sequence[str]], *, max_loss_ratio: float
    ) -> None:
        self._rows_of_step = rows_of_step
        self._max_loss_ratio = max_loss_ratio

    def on_train_begin(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        assert not args.logging_nan_inf_filter, "the trainer would log an average instead of a nan"
        assert args.logging_steps == 1, "a step that is not logged is not watched"

    def on_log(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        log = state.log_history[-1]
        if "loss" in log:
            self._check_finite(log, args)
            self._check_ratio(state.log_history, args)
        elif not math.isfinite(log.get("eval_loss", 0.0)):
            raise UserError(
                f"the validation loss after step {log['step']} is {log['eval_loss']}",
                where="the validation rows",
                remedy="look at them in the data report: each needs an answer that is learned",
            )

    def _check_finite(self, log: Mapping[str, float], args: TrainingArguments) -> None:
        loss, norm, step = log["loss"], log.get("grad_norm", 0.0), int(log["step"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"training has broken down: step {step} has loss {loss:g}, gradient norm {norm:g}",
                where=self._name_rows(step),
                remedy=f"if these rows are sound, {_gentler(args)}; the step was not saved",
            )

    def _check_ratio(self, history: Sequence[Mapping[str, float]], args: TrainingArguments) -> None:
        losses = step_losses(history)
        ratio = loss_ratio(losses)
        if ratio is not None and ratio > self._max_loss_ratio:
            last = losses[-WINDOW_STEPS:]
            worst = max(last, key=lambda one: one.loss)
            raise UserError(
                f"the loss explodes: its mean over steps {last[0].step} to {last[-1].step} is "
                f"{ratio:.2f} times the {losses[0].loss:.3g} of the first step "
                f"(train.max_loss_ratio is {self._max_loss_ratio:g})",
                where=f"worst at step {worst.step}, {worst.loss:.3g}: "
                f"{self._name_rows(worst.step)}",
                remedy=_gentler(args),
            )

    def _name_rows(self, step: int) -> str:
        rows = self._rows_of_step(step)
        named = ", ".join(rows[:MAX_ROWS_NAMED])
        num_more = len(rows) - MAX_ROWS_NAMED
        return f"{named} and {num_more} more" if num_more > 0 else named


def step_losses(history: Sequence[Mapping[str, float]]) -> list[StepLoss]:
    """The training losses of a trainer's `log_history`, in its order."""
    return [StepLoss(int(log["step"]), log["loss"]) for log in history if "loss" in log]


def loss_ratio(losses: Sequence[StepLoss]) -> float | None:
    """Mean loss of the last 10 steps over the first step's; None before there are 10."""
    if len(losses) < WINDOW_STEPS:
        return None
    mean = fmean(one.loss for one in losses[-WINDOW_STEPS:])
    first = losses[0].loss
    return mean / first if first else math.inf


def _gentler(args: TrainingArguments) -> str:
    return (
        f"lower train.learning_rate (now {args.learning_rate:g}) or raise train.warmup_steps "
        f"(now {args.warmup_steps:g})"
    )
