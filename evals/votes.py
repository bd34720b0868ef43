"""What people preferred when they did not know whose answers they saw: votes, pair by pair of
models, by the statistics that judge tasks.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.votes import Choice, Vote
from evals.results import VoteResult
from evals.statistics.comparison import PairedComparison
from evals.statistics.multiple import benjamini_hochberg
from evals.statistics.paired import compare_paired
from evals.statistics.verdict import decide

logger = logging.getLogger(__name__)

MIN_VOTES = 2
"""With fewer there is no interval."""
SCORES: dict[Choice, tuple[float, float]] = {
    "a": (1.0, 0.0),
    "b": (0.0, 1.0),
    "tie": (0.5, 0.5),
    "both_bad": (0.5, 0.5),
}
"""Of a and b; both bad says no more than a tie about which one is better."""


@dataclass(frozen=True, kw_only=True)
class _Ballot:
    """A vote seen from one of the two models; scores add up to 1."""

    vote: Vote
    score: float
    other_score: float
    is_shown_first: bool


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """All votes on two models; paired: None where there are too few of them."""

    model: str
    other: str
    ballots: Sequence[_Ballot]
    paired: PairedComparison | None
    position: PairedComparison | None


@dataclass(frozen=True, kw_only=True)
class _Settings:
    confidence: float
    num_resamples: int
    seed: int


def summarise_votes(
    votes: Sequence[Vote], *, confidence: float, num_resamples: int, seed: int, own: str = ""
) -> list[VoteResult]:
    """How votes went for each pair of models, those on `own` first, then by number.

    Each vote is a paired difference of 1, 0 or -1; votes on the same prompt are one cluster. Votes
    between a model and itself say nothing of models: they are left out with a warning. own: the
    model from whose side its pairs are told. Depends on the arguments alone.
    """
    settings = _Settings(confidence=confidence, num_resamples=num_resamples, seed=seed)
    by_pair: defaultdict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        first, second = sorted((vote.a.model, vote.b.model), key=lambda name: (name != own, name))
        by_pair[first, second].append(vote)
    alone = [pair for pair in by_pair if len(set(pair)) == 1]
    for pair in alone:
        num_alone = len(by_pair.pop(pair))
        logger.warning("%d votes between %s and itself are left out", num_alone, pair[0])
    pairs = [
        _pair(model, other, own_votes, settings) for (model, other), own_votes in by_pair.items()
    ]
    pairs.sort(key=lambda pair: (pair.model != own, -len(pair.ballots), pair.model, pair.other))
    adjusted = iter(benjamini_hochberg([one.paired.p_value for one in pairs if one.paired]))
    return [
        _result(pair, next(adjusted) if pair.paired else None, confidence=confidence)
        for pair in pairs
    ]


def _pair(model: str, other: str, votes: Sequence[Vote], settings: _Settings) -> _Pair:
    ballots = [_ballot(vote, model) for vote in votes]
    decided = [one for one in ballots if one.score != one.other_score]
    # The same question of the places instead of the models: a win of what was shown first.
    by_place = [
        (one.score, one.other_score) if one.is_shown_first else (one.other_score, one.score)
        for one in decided
    ]
    return _Pair(
        model=model,
        other=other,
        ballots=ballots,
        paired=_compare([(one.score, one.other_score) for one in ballots], ballots, settings),
        position=_compare(by_place, decided, settings),
    )


def _ballot(vote: Vote, model: str) -> _Ballot:
    is_a = vote.a.model == model
    score_a, score_b = SCORES[vote.choice]
    return _Ballot(
        vote=vote,
        score=score_a if is_a else score_b,
        other_score=score_b if is_a else score_a,
        is_shown_first=(vote.shown_first == "a") == is_a,
    )


def _compare(
    scores: Sequence[tuple[float, float]], ballots: Sequence[_Ballot], settings: _Settings
) -> PairedComparison | None:
    """The first of each two scores against the second."""
    if len(scores) < MIN_VOTES:
        return None
    ours, theirs = np.array(scores).T
    return compare_paired(
        theirs,
        ours,
        clusters=[one.vote.prompt_sha256 for one in ballots],
        confidence=settings.confidence,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        margin=0.0,
    )


def _result(pair: _Pair, adjusted: float | None, *, confidence: float) -> VoteResult:
    ballots, paired = pair.ballots, pair.paired
    choices = Counter(one.vote.choice for one in ballots)
    num_won = sum(one.score > one.other_score for one in ballots)
    num_lost = sum(one.score < one.other_score for one in ballots)
    times = sorted(one.vote.time for one in ballots)
    return VoteResult(
        model=pair.model,
        other=pair.other,
        num_votes=len(ballots),
        num_won=num_won,
        num_lost=num_lost,
        num_tied=choices["tie"],
        num_both_bad=choices["both_bad"],
        num_prompts=len({one.vote.prompt_sha256 for one in ballots}),
        num_voters=len({one.vote.client for one in ballots}),
        num_shown_first=sum(one.is_shown_first for one in ballots),
        share=_rounded(0.5 + (num_won - num_lost) / len(ballots) / 2),
        # A difference of shares runs from -1 to 1, the share itself from 0 to 1.
        interval=[_rounded(0.5 + bound / 2) for bound in paired.interval] if paired else None,
        p_value=_significant(paired.p_value) if paired else None,
        adjusted_p_value=None if adjusted is None else _significant(adjusted),
        verdict=decide(paired.interval, adjusted, confidence=confidence, margin=0.0)
        if paired and adjusted is not None
        else "inconclusive",
        interval_method=paired.interval_method if paired else "",
        test_method=paired.test_method if paired else "",
        first_day=times[0].date().isoformat(),
        last_day=times[-1].date().isoformat(),
        warnings=_warnings(pair, confidence=confidence),
    )


def _warnings(pair: _Pair, *, confidence: float) -> list[str]:
    """Why to doubt the votes on a pair, in sentences."""
    warnings: list[str] = []
    position = pair.position
    if position is not None and position.p_value < round(1 - confidence, 12):
        num_first, num_decided = position.num_won, position.num_pairs
        warnings.append(
            f"The answer shown first was chosen in {num_first} of {num_decided} decided votes "
            f"(p {position.p_value:.2g}): where an answer stood has moved the votes, or the order "
            "was not left to chance."
        )
    if len(pair.ballots) > 1 and len({one.vote.client for one in pair.ballots}) == 1:
        warnings.append(
            "All votes came with one key or from one address: they may be one person's taste."
        )
    return warnings


def _significant(p_value: float) -> float:
    return float(f"{p_value:.6g}")


def _rounded(share: float) -> float:
    return round(float(share), 6)
