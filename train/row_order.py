"""The order in which training meets its rows, decided before it starts."""

from collections.abc import Sequence

import numpy as np


def order_rows(lengths: Sequence[int], *, num_steps: int, batch_rows: int, seed: int) -> list[int]:
    """Row numbers for all optimizer steps, `batch_rows` each: one random pass after the other.

    Which rows share a step is left to chance. Inside a step they stand by length (in tokens), so
    that micro-batches are padded little; the loss is scaled over the whole step, so the gradient
    does not depend on it. Grouping whole steps by length saves a little more and learns far less
    (docs/training.md).
    """
    generator = np.random.default_rng(seed)
    num_needed = num_steps * batch_rows
    num_passes = -(-num_needed // len(lengths))
    passes = [generator.permutation(len(lengths)) for _ in range(num_passes)]
    steps = np.concatenate(passes)[:num_needed].reshape(num_steps, batch_rows)
    by_length = np.argsort(-np.asarray(lengths)[steps], axis=1, kind="stable")
    ordered: list[int] = np.take_along_axis(steps, by_length, axis=1).flatten().tolist()
    return ordered


def count_steps(
    num_rows: int, *, batch_rows: int, num_steps: int | None, num_epochs: float | None
) -> int:
    """Optimizer steps of a training given by steps or by passes over the rows."""
    if num_steps is not None:
        return num_steps
    assert num_epochs is not None
    return max(1, round(num_epochs * num_rows / batch_rows))
