"""Scores as they come from an evaluation, checked and averaged over epochs."""

import numpy as np
import numpy.typing as npt

from evals.statistics.estimate import Values


def average_epochs(scores: npt.ArrayLike) -> Values:
    """Mean per question of scores (n,) or (n, epochs), n at least 2.

    Errors: `ValueError` for other shapes, fewer than two questions, or scores outside 0 to 1.
    """
    values = np.asarray(scores, dtype=float)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise ValueError(f"scores have to be (questions,) or (questions, epochs): {values.shape}")
    if len(values) < 2:
        raise ValueError("a comparison needs at least two questions")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("scores have to lie between 0 and 1")
    return values if values.ndim == 1 else values.mean(axis=1)
