"""When each optimizer step ended, for benchmarks that leave out the first ones."""

import time

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Clock(TrainerCallback):
    """Notes when each optimizer step ended, and the tokens seen by then."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by the trainer."""
        self.marks.append((time.perf_counter(), int(state.num_input_tokens_seen)))
