"""What a person sees while the adapter trains: one bar with loss, tokens/s and time left."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train.nf4_checkpoint import resolve_nf4


class TrainingProgress(TrainerCallback):
    """Draws the bar, and keeps the loss curve of this process and its speed.

    tokens_per_second counts the tokens of the training rows (padding left out) over the time spent
    in optimizer steps, without validation and checkpoints.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("    training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
        )
        self._seconds = 0.0
        self._tokens = 0
        self._validation_loss: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Speed over the steps of this process; 0 before the first one."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def on_train_begin(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        self._seen_before = int(state.num_input_tokens_seen)
        self._task = self._progress.add_task(
            "", total=state.max_steps, completed=state.global_step, figures=""
        )
        self._progress.start()

    def on_step_begin(self, *_: Any, **__: Any) -> None:  # noqa: D102, ANN401
        self._step_started = time.perf_counter()

    def on_step_end(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        self._seconds += time.perf_counter() - self._step_started
        self._tokens = int(state.num_input_tokens_seen) - self._seen_before
        self._progress.update(self._task, completed=state.global_step)

    def on_log(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,  # noqa: ANN401
    ) -> None:
        logs = logs or {}
        self._validation_loss = logs.get("eval_loss", self._validation_loss)
        if "loss" in logs:
            figures = f"loss {logs['loss']:.3f}"
            if self._validation_loss is not None:
                figures += f" (validation {self._validation_loss:.3f})"
            self._progress.update(
                self._task, figures=f"{figures}, {self.tokens_per_second:.0f} tokens/s"
            )

    def on_train_end(self, *_: Any, **__: Any) -> None:  # noqa: D102, ANN401
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._progress.live.is_started:
            self._progress.stop()


def quantize_once(checkpoint: Path, console: Console) -> None:
    """Have the NF4 checkpoint made where it is not there yet, which takes a 24B minutes."""
    columns = (TextColumn("    quantizing the base, once"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)
        resolve_nf4(
            checkpoint,
            on_tensor=lambda done, total: progress.update(
                task, completed=done, total=total, visible=True
            ),
        )
