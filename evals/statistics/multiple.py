"""Several tasks, several chances of a false alarm: p-values that allow for it."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the given order.

    Below a level, the chance of even one false claim among all is below it, however the tasks hang
    together. Not statsmodels' `multipletests`, which collects garbage at each call: a quarter of a
    second and more in a process that holds much.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    # The smallest of n times n, the next times n - 1, and so on, never falling.
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (1995), in the given order.

    Below a level, the expected share of false claims among all claims is below it.
    """
    if not p_values:
        return []
    return [float(p) for p in false_discovery_control(p_values, method="bh")]
