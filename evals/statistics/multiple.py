"""Several tasks, several chances of a false alarm: p-values that allow for it."""

from collections.abc import Sequence

from statsmodels.stats.multitest import multipletests


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the given order.

    Below a level, the chance of even one false claim among all is below it, however the tasks hang
    together.
    """
    return _adjust(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (1995), in the given order.

    Below a level, the expected share of false claims among all claims is below it.
    """
    return _adjust(p_values, "fdr_bh")


def _adjust(p_values: Sequence[float], method: str) -> list[float]:
    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method=method)[1]]
