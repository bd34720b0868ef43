"""Training that runs out of memory goes on with less, instead of ending after the wait for it."""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from rich.console import Console

from configs.errors import UserError
from configs.schema import TrainConfig
from train.plan.advice import Relief

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's or the host's allocator has refused; the CPU's tells it in words alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def with_reliefs(
    attempt: Callable[[TrainConfig], Result],
    config: TrainConfig,
    reliefs: Iterator[Relief],
    console: Console,
) -> tuple[Result, list[str]]:
    """`attempt` with `config`, then with one relief more each time that memory runs out.

    Returns what the attempt returned, and the reliefs that it took. `UserError` where none is left.
    """
    taken: list[str] = []
    while True:
        try:
            return attempt(config), taken
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            told = str(error).splitlines()[0]
        # Only here are the frames of the failed attempt, and with them its tensors, let go.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        relief = next(reliefs, None)
        if relief is None:
            raise UserError(
                f"out of memory, and nothing is left to save: {told}",
                where="train",
                remedy="lower model.max_length or train.lora.rank; `tunery plan` says what fits",
            )
        console.print(f"    [yellow]out of memory[/]: going on with {relief.told}")
        taken.append(relief.told)
        config = relief.config
