"""SIGTERM while training: the running step ends and is saved, so that a resumed run loses nothing.

Schedulers and container hosts send it some seconds before they kill.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.errors import Interrupted
from train.processes import any_of_all


class Interruption(TrainerCallback):
    """Ends training at the first SIGTERM with `Interrupted`; a context manager and a callback.

    In the training loop the running step ends, with its validation where one is due, because a
    resumed run would miss that; a checkpoint is saved; then `Interrupted` is raised from
    `trainer.train`. Outside the loop, where there is nothing to save, it is raised at once. A
    second SIGTERM ends the process as if there were no handler.

    As a context manager it holds the signal, in the main thread only; it belongs last in the
    trainer's callbacks, so that the others see the end of training.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._in_loop = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            # None stands for a handler that was not set from Python and cannot be put back.
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def on_train_begin(self, *_: Any, **__: Any) -> None:  # noqa: D102, ANN401
        self._in_loop = True

    def on_step_end(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        self._end(control)

    def on_log(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        # A validation logs before it ends: one that was running when the signal came.
        self._end(control)

    def on_save(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        if self._is_requested:
            control.should_training_stop = True

    def on_train_end(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        self._in_loop = False
        if self._is_requested:
            raise Interrupted(f"SIGTERM: stopped after step {state.global_step}, which is saved")

    def _end(self, control: TrainerControl) -> None:
        # The signal reaches processes that train together at different steps.
        self._is_requested = any_of_all(self._is_requested)
        if self._is_requested:
            control.should_training_stop = True
            control.should_save = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # The kernel's own default, so that a second one ends even a step that never comes back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._is_requested = True
        if not self._in_loop:
            raise Interrupted("SIGTERM outside the training loop, with nothing to save")
