"""What is known about a mean difference once its questions may share documents: size and spread.

Scores of questions that come from one document rise and fall together, so what counts as one
observation is the document (the cluster), not the question.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]

# Under it two differences count as the same: scores are shares, rounded in their last bits.
TOLERANCE = 1e-12


class Outcome(NamedTuple):
    """Questions that went one way: their share, the mean size of their differences, its square.

    size and square: of absolute differences, in shares of 1 and their squares; 1 where there are
    no such questions, because the worst that is possible has to be reckoned with.
    """

    share: float
    size: float
    square: float


class Clusters(NamedTuple):
    """Which questions belong together: members (n,), each a cluster's number; sizes per cluster."""

    members: npt.NDArray[np.int64]
    sizes: Values

    @classmethod
    def of(cls, labels: Sequence[str] | None, num_questions: int) -> Self:
        """Clusters by label, in the order of their first question; each its own without labels.

        Errors: `ValueError` where there is not one label per question.
        """
        if labels is None:
            return cls(np.arange(num_questions), np.ones(num_questions))
        if len(labels) != num_questions:
            raise ValueError(f"{num_questions} questions have {len(labels)} cluster labels")
        numbers: dict[str, int] = {}
        index = np.array([numbers.setdefault(label, len(numbers)) for label in labels])
        return cls(index, np.bincount(index).astype(float))

    @property
    def are_single(self) -> bool:
        """Whether every question stands alone."""
        return len(self.sizes) == len(self.members)

    def sums(self, values: Values) -> Values:
        """Sums per cluster of values of shape (n,) or (n, columns)."""
        if self.are_single:
            return values
        sums = np.zeros((len(self.sizes), *values.shape[1:]))
        np.add.at(sums, self.members, values)
        return sums


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean difference `delta` with all that its bounds need.

    variance and third_moment: of the estimate about its mean; degrees_of_freedom: of the variance,
    infinite where it follows from the shares themselves; num_clusters: independent observations;
    won and lost: questions with a positive and a negative difference; is_graded: differences are
    not all -1, 0 or 1.
    """

    delta: float
    variance: float
    third_moment: float
    degrees_of_freedom: float
    num_clusters: int
    won: Outcome
    lost: Outcome
    is_graded: bool

    @property
    def standard_error(self) -> float:
        """Standard deviation of `delta` over repetitions of the evaluation, a share of 1."""
        return math.sqrt(self.variance)


def estimate_mean(differences: Values, clusters: Clusters) -> Estimate:
    """The mean of differences (n,) between -1 and 1, its variance robust to clusters.

    The variance is CR2 (Bell and McCaffrey 2002, Survey Methodology 28:169) of the mean of all
    questions, whose degrees of freedom are Satterthwaite's for questions of equal variance; with
    single questions both are the usual ones. Binary differences of single questions have no spread
    but that of their shares, so their variance is that of the multinomial distribution.
    """
    num, delta = len(differences), float(differences.mean())
    sizes = clusters.sizes
    residuals = clusters.sums(differences) - delta * sizes
    leverage = sizes / num
    is_graded = not bool(np.isin(np.abs(differences), (0.0, 1.0)).all())
    if clusters.are_single and not is_graded:
        variance, third_moment, freedom = float(differences.var()) / num, 0.0, math.inf
    elif len(sizes) == 1:
        # One document says nothing about the next: the bounds know the possible range alone.
        variance, third_moment, freedom = 0.0, 0.0, 1.0
    else:
        variance = float((residuals**2 / (1 - leverage)).sum()) / num**2
        third_moment = float((residuals**3).sum()) / num**3
        freedom = bell_mccaffrey_freedom(sizes)
    return Estimate(
        delta=delta,
        variance=variance if variance > TOLERANCE**2 else 0.0,
        third_moment=third_moment,
        degrees_of_freedom=freedom,
        num_clusters=len(sizes),
        won=_outcome(differences),
        lost=_outcome(-differences),
        is_graded=is_graded,
    )


def bell_mccaffrey_freedom(sizes: Values) -> float:
    """Degrees of freedom of CR2 for a mean over clusters of these sizes, two or more of them.

    tr(Ω)² / tr(Ω²) with Ω the covariance of the clusters' adjusted residuals where questions are
    uncorrelated (Imbens and Kolesár 2016, Review of Economics and Statistics 98:701), written out
    for a model that is one constant. Equal clusters have their number minus 1.
    """
    num = float(sizes.sum())
    adjusted = sizes**2 / (1 - sizes / num)
    squares = (sizes**2).sum() + (adjusted.sum() ** 2 - (adjusted**2).sum()) / num**2
    return float(num**2 / squares)


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """The plain mean of the deltas of independent tasks, each with the same weight.

    Degrees of freedom as Welch and Satterthwaite (1947) have them for a sum of variances. Errors:
    `ValueError` without any estimate.
    """
    if not estimates:
        raise ValueError("there is nothing to pool")
    num = len(estimates)
    variances = [estimate.variance for estimate in estimates]
    # A variance that shares settle adds nothing to the doubt about the others.
    doubt = sum(
        one.variance**2 / one.degrees_of_freedom
        for one in estimates
        if math.isfinite(one.degrees_of_freedom)
    )
    return Estimate(
        delta=sum(estimate.delta for estimate in estimates) / num,
        variance=sum(variances) / num**2,
        third_moment=sum(estimate.third_moment for estimate in estimates) / num**3,
        degrees_of_freedom=sum(variances) ** 2 / doubt if doubt > 0 else math.inf,
        num_clusters=sum(estimate.num_clusters for estimate in estimates),
        won=_pool_outcomes([estimate.won for estimate in estimates]),
        lost=_pool_outcomes([estimate.lost for estimate in estimates]),
        is_graded=any(estimate.is_graded for estimate in estimates),
    )


def _outcome(differences: Values) -> Outcome:
    sizes = differences[differences > TOLERANCE]
    if len(sizes) == 0:
        return Outcome(0.0, 1.0, 1.0)
    return Outcome(
        len(sizes) / len(differences), float(sizes.mean()), float((sizes * sizes).mean())
    )


def _pool_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    total = sum(outcome.share for outcome in outcomes)
    if total == 0:
        return Outcome(0.0, 1.0, 1.0)
    return Outcome(
        total / len(outcomes),
        sum(outcome.share * outcome.size for outcome in outcomes) / total,
        sum(outcome.share * outcome.square for outcome in outcomes) / total,
    )
