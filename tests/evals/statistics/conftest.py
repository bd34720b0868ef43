from collections.abc import Callable

import pytest

from evals.statistics.comparison import PairedComparison
from evals.statistics.paired import compare_paired

Compare = Callable[..., PairedComparison]


@pytest.fixture
def compare() -> Compare:
    """`compare_paired` with the demo's rule; keywords override it."""

    def compare_by_rule(
        baseline: list[float], variant: list[float], **options: object
    ) -> PairedComparison:
        rule: dict[str, object] = {
            "confidence": 0.95,
            "num_resamples": 2000,
            "seed": 17,
            "margin": 0.03,
        }
        return compare_paired(baseline, variant, **(rule | options))  # type: ignore[arg-type]

    return compare_by_rule


def pairs(
    *, won: int = 0, lost: int = 0, both: int = 0, neither: int = 0
) -> tuple[list[float], list[float]]:
    """Scores of both sides, that many of each outcome."""
    baseline = [0.0] * won + [1.0] * lost + [1.0] * both + [0.0] * neither
    variant = [1.0] * won + [0.0] * lost + [1.0] * both + [0.0] * neither
    return baseline, variant
