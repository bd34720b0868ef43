"""What a person sees while both sides are asked: one bar with questions and time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evals.asking import Progress as ReportProgress


@contextmanager
def asking_bar(console: Console) -> Iterator[ReportProgress]:
    """Draw a bar for a block; yields what is called with answers so far and answers in all."""
    bar = Progress(
        TextColumn("    asking  "),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("answers"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda num_done, num_all: bar.update(task, completed=num_done, total=num_all)
