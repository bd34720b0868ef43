"""Progress bars of the prepare stage: rows, rows a second, time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="progress.data.speed")


class PrepareProgress:
    """One bar for each step on a console; silent without one."""

    def __init__(self, console: Console | None) -> None:
        self._progress = Progress(
            TextColumn("    {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=console is None,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator["StepProgress"]:
        """A bar for one step; total: its rows, where they are known beforehand."""
        number = self._progress.add_task(name, total=total)
        yield StepProgress(self._progress, number)
        self._progress.update(number, total=self._progress.tasks[number].completed)


class StepProgress:
    """The bar of one step."""

    def __init__(self, progress: Progress, number: int) -> None:
        self._progress = progress
        self._number = number

    def advance(self, num_rows: int) -> None:
        """Count rows that are done."""
        self._progress.advance(self._number, num_rows)  # type: ignore[arg-type]
