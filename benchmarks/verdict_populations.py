"""Whole populations of questions whose true difference is known, and samples from them.

A population is a table of rows, each what both sides score on a question of one sort, with its
share. Questions of one cluster are alike: each copies the cluster's own row with probability √ρ,
else draws anew, which makes any two of them correlate by ρ in every score.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evals.metrics.labels import LabelCounts, macro_f1
from evals.statistics.estimate import bell_mccaffrey_freedom
from evals.statistics.power import planned_design_effect

Array = npt.NDArray[np.float64]


class Population(NamedTuple):
    """rows: (m, columns), baseline's score first, variant's second; shares: (m,), summing to 1."""

    name: str
    rows: Array
    shares: Array

    @property
    def delta(self) -> float:
        """The true mean difference."""
        return float(self.shares @ (self.rows[:, 1] - self.rows[:, 0]))

    @property
    def variance(self) -> float:
        """Of one question's difference."""
        return float(self.shares @ (self.rows[:, 1] - self.rows[:, 0]) ** 2) - self.delta**2

    @property
    def share_differing(self) -> float:
        """Questions on which the sides score differently."""
        return float(self.shares @ (self.rows[:, 1] != self.rows[:, 0]))


class Layout(NamedTuple):
    """num questions in clusters of the given sizes, correlated by `correlation` within."""

    num: int
    sizes: tuple[int, ...]
    correlation: float

    @property
    def labels(self) -> list[str] | None:
        """One per question; None where each stands alone."""
        if len(self.sizes) == self.num:
            return None
        return [str(number) for number in np.repeat(np.arange(len(self.sizes)), self.sizes)]

    @property
    def design_effect(self) -> float:
        """How many times the variance of a mean grows by the clusters."""
        return planned_design_effect(self.sizes, correlation=self.correlation)

    @property
    def degrees_of_freedom(self) -> float:
        """Of the cluster-robust variance."""
        return bell_mccaffrey_freedom(np.array(self.sizes, dtype=float))


def single(num: int) -> Layout:
    """Questions that all stand alone."""
    return Layout(num, (1,) * num, 0.0)


def clustered(num: int, largest: int, correlation: float) -> Layout:
    """Clusters of 1 to `largest` questions, all sizes alike often."""
    rng = np.random.default_rng(5)
    sizes: list[int] = []
    while (rest := num - sum(sizes)) > 0:
        sizes.append(min(int(rng.integers(1, largest + 1)), rest))
    return Layout(num, tuple(sizes), correlation)


def binary(won: float, lost: float, *, score: float = 0.5) -> Population:
    """Right or wrong, in shares of all questions; `score`: the baseline's, where it can be."""
    both = min(max(score - lost, 0.0), 1 - won - lost)
    return Population(
        f"binary, {100 * won:g} % won, {100 * lost:g} % lost, baseline {both + lost:.2f}",
        np.array([[0, 1], [1, 0], [1, 1], [0, 0]], dtype=float),
        np.array([won, lost, both, 1 - won - lost - both]),
    )


def token_f1(gain: float) -> Population:
    """Shares of 1 with many ties at 0 and 1, as token F1 has them; the variant better by `gain`."""
    levels = np.array([0, 1 / 3, 0.5, 2 / 3, 0.8, 1])
    weights = np.array([0.25, 0.08, 0.1, 0.12, 0.1, 0.35])
    tilted = weights * np.exp(gain * levels)
    tilted /= tilted.sum()
    apart = np.outer(weights, tilted) * 0.5
    same = np.diag(weights) * 0.5
    rows = np.array([[before, after] for before in levels for after in levels])
    return Population(f"token F1, tilt {gain:g}", rows, (apart + same).ravel())


def judged(shift: float) -> Population:
    """A judge's or ROUGE's scores: nearly all differ a little, evenly spread around `shift`."""
    starts, steps = np.linspace(0.3, 0.6, 7), np.linspace(-0.24, 0.24, 9)
    rows = np.array([[start, start + step + shift] for start in starts for step in steps])
    return Population(f"graded, shift {shift:g}", rows, np.full(len(rows), 1 / len(rows)))


def rare_graded(won: float, lost: float) -> Population:
    """Graded, but few differ: sizes of the differences evenly from 0.1 to 1."""
    sizes = np.linspace(0.1, 1, 10)
    rows = np.array([[0, size] for size in sizes] + [[size, 0] for size in sizes] + [[1, 1]])
    shares = [won / 10] * 10 + [lost / 10] * 10 + [1 - won - lost]
    return Population(
        f"rarely differing, {100 * won:g} % up, {100 * lost:g} % down", rows, np.array(shares)
    )


def lopsided() -> Population:
    """Half gain a tenth, one in twenty loses everything: no difference, but a skewed one."""
    rows = np.array([[0.9, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return Population("lopsided: 50 % gain 0.1, 5 % lose 1", rows, np.array([0.5, 0.05, 0.45]))


def draw(population: Population, layout: Layout, rng: np.random.Generator) -> Array:
    """Rows (num, columns) of one evaluation."""
    steps = np.cumsum(population.shares)
    steps[-1] = 1.0 + 1e-9
    own = np.searchsorted(steps, rng.random(layout.num), side="right")
    if layout.correlation > 0:
        shared = np.searchsorted(steps, rng.random(len(layout.sizes)), side="right")
        copies = rng.random(layout.num) < math.sqrt(layout.correlation)
        own = np.where(copies, np.repeat(shared, layout.sizes), own)
    drawn: Array = population.rows[own]
    return drawn


class LabelPopulation(NamedTuple):
    """rows: (m, 3) of true, baseline's and variant's label; macro-F1 is what is compared."""

    name: str
    rows: Array
    shares: Array
    num_labels: int

    @property
    def delta(self) -> float:
        """The true difference of macro-F1."""
        baseline, variant = (self._score(column) for column in (1, 2))
        return variant - baseline

    def _score(self, column: int) -> float:
        truth, given = self.rows[:, 0].astype(int), self.rows[:, column].astype(int)
        right = np.zeros(self.num_labels)
        wrong, missed = right.copy(), right.copy()
        hit = truth == given
        np.add.at(right, truth[hit], self.shares[hit])
        np.add.at(wrong, given[~hit], self.shares[~hit])
        np.add.at(missed, truth[~hit], self.shares[~hit])
        return float(macro_f1(right, wrong, missed))


def labels(num_labels: int, *, rates: tuple[float, float], skew: float) -> LabelPopulation:
    """Labels of falling frequency; either side right with its rate, else any other label.

    Both sides err independently. skew: how much rarer each label is than the one before, as a
    power of its rank.
    """
    frequencies = (1 + np.arange(num_labels)) ** -skew
    frequencies /= frequencies.sum()
    rows, shares = [], []
    for truth in range(num_labels):
        for first in range(num_labels):
            for second in range(num_labels):
                share = frequencies[truth]
                for rate, given in zip(rates, (first, second), strict=True):
                    share *= rate if given == truth else (1 - rate) / (num_labels - 1)
                rows.append((truth, first, second))
                shares.append(share)
    return LabelPopulation(
        f"macro-F1, {num_labels} labels, {100 * rates[0]:g} against {100 * rates[1]:g} % right",
        np.array(rows, dtype=float),
        np.array(shares),
        num_labels,
    )


def count(rows: Array, column: int, num_labels: int) -> LabelCounts:
    """Label counts of one side, over the labels that occur in the sample's truth."""
    truth, given = rows[:, 0].astype(int), rows[:, column].astype(int)
    true, said = np.eye(num_labels, dtype=bool)[truth], np.eye(num_labels, dtype=bool)[given]
    occurring = true.any(axis=0)
    return LabelCounts(
        labels=tuple(str(label) for label in np.flatnonzero(occurring)),
        true_positives=(true & said)[:, occurring].astype(np.int64),
        false_positives=(~true & said)[:, occurring].astype(np.int64),
        false_negatives=(true & ~said)[:, occurring].astype(np.int64),
    )
