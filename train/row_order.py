"""Which rows training meets when, decided before it starts."""

from collections.abc import Sequence

import numpy as np

from data.tokens.packing import plan_packs


def plan_sequences(lengths: np.ndarray, *, capacity: int | None, seed: int) -> list[list[int]]:
    """Row numbers of each sequence: one row each, or packs of up to `capacity` tokens.

    lengths: tokens of each row. Rows of one length are dealt to packs by chance, not in the order
    of their file, which often puts like with like.
    """
    if capacity is None:
        return [[number] for number in range(len(lengths))]
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    packs = plan_packs(lengths[shuffled], capacity)
    by_pack = np.argsort(packs, kind="stable")
    ends = np.cumsum(np.bincount(packs))[:-1]
    return [shuffled[pack].tolist() for pack in np.split(by_pack, ends)]


def order_rows(
    lengths: Sequence[int], *, num_steps: int, batch_rows: int, micro_batch_rows: int, seed: int
) -> list[int]:
    """Row numbers for all optimizer steps, `batch_rows` each: one random pass after the other.

    Which rows share a step is left to chance. Inside a step they are dealt to its micro-batches so
    that these hold about the same number of tokens, for the largest one decides the memory; the
    loss is scaled over the whole step, so the gradient does not depend on it. Grouping whole steps
    by length learns far less (docs/training.md).
    """
    generator = np.random.default_rng(seed)
    num_needed = num_steps * batch_rows
    num_passes = -(-num_needed // len(lengths))
    passes = [generator.permutation(len(lengths)) for _ in range(num_passes)]
    steps = np.concatenate(passes)[:num_needed].reshape(num_steps, batch_rows)
    longest_first = np.argsort(-np.asarray(lengths)[steps], axis=1, kind="stable")
    steps = np.take_along_axis(steps, longest_first, axis=1)
    # Dealt like cards, to and fro: each round gives every micro-batch one row.
    rounds = steps.reshape(num_steps, micro_batch_rows, batch_rows // micro_batch_rows)
    rounds[:, 1::2] = rounds[:, 1::2, ::-1].copy()
    ordered: list[int] = rounds.transpose(0, 2, 1).flatten().tolist()
    return ordered


def count_steps(
    num_rows: int, *, batch_rows: int, num_steps: int | None, num_epochs: float | None
) -> int:
    """Optimizer steps of a training given by steps or by passes over the rows."""
    if num_steps is not None:
        return num_steps
    assert num_epochs is not None
    return max(1, round(num_epochs * num_rows / batch_rows))
