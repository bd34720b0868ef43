"""What the merge stage shows of its steps while they run, and how long each took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from train.weight_files import OnTensor


class Steps:
    """Seconds by step, in order."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def step(self, told: str) -> Iterator[OnTensor]:
        """Time a block and show it; yields what to tell of each tensor that is done."""
        started = time.monotonic()
        columns = (SpinnerColumn(), TextColumn(f"  {told}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as progress:
            task = progress.add_task(told, total=None)

            def on_tensor(num_done: int, num_tensors: int) -> None:
                progress.update(task, completed=num_done, total=num_tensors)

            yield on_tensor
        self.seconds[told] = round(time.monotonic() - started, 1)
