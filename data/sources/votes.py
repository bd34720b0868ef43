"""Votes of the workbench as preference pairs: the answer that was chosen, and the one that was not.

Votes on one and the same pair of answers are settled here, by their majority: later on equal rows
count once, and three votes against one would become one against one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.data_schema import PreferenceShape, VotesSource
from data.checks import RowError
from data.conversation import ReadRows, Reject
from data.shapes.columns import Row
from data.sources.paths import expand_paths, short_names
from data.sources.table import RowRules
from data.sources.whole import WholeSource
from data.votes import BrokenLine, Choice, Vote, json_sha256, vote_lines

TIE = "found both answers equally good"
BOTH_BAD = "found both answers bad"
REPEATED = "counted already: the same vote stands in the files twice"
CHOSEN_NOT_NAMED = "for an answer of a model that chosen_models does not name"
REJECTED_NOT_NAMED = "against an answer of a model that rejected_models does not name"
OUTVOTED = "outvoted on the same two answers"
UNSETTLED = "on two answers that have as many votes each"
UNDECIDED: dict[Choice, str] = {"tie": TIE, "both_bad": BOTH_BAD}
RULES = RowRules(shape=PreferenceShape(kind="preference"), id_column="id", group_column="group")


class PlacedVote(NamedTuple):
    """A vote that has a winner, and the file and line where it stands."""

    where: str
    vote: Vote


@dataclass
class FoundVotes:
    """What the files hold; num_read: lines with or without a vote."""

    num_read: int = 0
    decided: list[PlacedVote] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def open_votes(config: VotesSource) -> WholeSource:
    """Find the files and tell how their votes went; errors as `expand_paths` and `vote_lines`."""
    files = expand_paths(config.path, key="path")
    return WholeSource(
        load=partial(load_votes, config, files),
        licence=config.licence,
        attribution=config.attribution,
        told=_told(find_votes(config, files)),
    )


def load_votes(config: VotesSource, files: Sequence[Path]) -> ReadRows:
    """One row for each vote that has a winner and is not outvoted.

    Its id is the vote's, its group the prompt, so that no prompt is on both sides of the split.
    """
    found = find_votes(config, files)
    settled, lost = settle(found.decided)
    rows = RULES.read(_rows(settled), side="")
    return ReadRows(
        conversations=rows.conversations,
        num_read=found.num_read,
        rejects=[*found.rejects, *rows.rejects],
        dropped=found.dropped + lost,
    )


def find_votes(config: VotesSource, files: Sequence[Path]) -> FoundVotes:
    """The votes of all files that have a winner which the configuration takes."""
    found = FoundVotes()
    seen: set[str] = set()
    for file, name in zip(files, short_names(files), strict=True):
        for number, vote in vote_lines(file):
            found.num_read += 1
            where = f"{name}:{number}"
            if isinstance(vote, BrokenLine):
                reason = f"not a vote: {vote.reason}"
                found.rejects.append(Reject(where=where, reason=reason))
            elif vote.id in seen:
                found.dropped[REPEATED] += 1
            elif rule := _why_not(vote, config):
                found.dropped[rule] += 1
            else:
                found.decided.append(PlacedVote(where, vote))
            if isinstance(vote, Vote):
                seen.add(vote.id)
    return found


def settle(votes: Sequence[PlacedVote]) -> tuple[list[PlacedVote], Counter[str]]:
    """The votes that go with the majority on their two answers; how many others, by rule."""
    by_answers: defaultdict[str, list[PlacedVote]] = defaultdict(list)
    for placed in votes:
        by_answers[_answers_key(placed.vote)].append(placed)
    kept: list[PlacedVote] = []
    lost: Counter[str] = Counter()
    for same in by_answers.values():
        winners = Counter(_answer_key(placed.vote, chosen=True) for placed in same)
        (first, num_first), *others = winners.most_common()
        if others and others[0][1] == num_first:
            lost[UNSETTLED] += len(same)
            continue
        with_majority = [p for p in same if _answer_key(p.vote, chosen=True) == first]
        kept += with_majority
        lost[OUTVOTED] += len(same) - len(with_majority)
    return kept, +lost


def _why_not(vote: Vote, config: VotesSource) -> str:
    """The rule that leaves a vote out, empty where none does."""
    if vote.chosen is None or vote.other is None:
        return UNDECIDED[vote.choice]
    if config.chosen_models is not None and vote.chosen.model not in config.chosen_models:
        return CHOSEN_NOT_NAMED
    if config.rejected_models is not None and vote.other.model not in config.rejected_models:
        return REJECTED_NOT_NAMED
    return ""


def _rows(votes: Sequence[PlacedVote]) -> Iterator[tuple[str, Row | RowError]]:
    """Rows of shape preference."""
    for where, vote in votes:
        assert vote.chosen is not None, "only votes with a winner get here"
        assert vote.other is not None, "only votes with a winner get here"
        yield (
            where,
            {
                "id": vote.id,
                "group": vote.prompt_sha256,
                "prompt": vote.messages,
                "chosen": [vote.chosen.message.model_dump()],
                "rejected": [vote.other.message.model_dump()],
                "tools": vote.tools,
            },
        )


def _answer_key(vote: Vote, *, chosen: bool) -> str:
    answer = vote.chosen if chosen else vote.other
    assert answer is not None, "only votes with a winner get here"
    return json_sha256(answer.message.model_dump())


def _answers_key(vote: Vote) -> str:
    """The same for votes on the same two answers to the same request, either way round."""
    answers = sorted(_answer_key(vote, chosen=chosen) for chosen in (True, False))
    return json_sha256([vote.messages, vote.tools, answers])


def _told(found: FoundVotes) -> str:
    """How the votes went, whether they disagree, and who was chosen how often."""
    _, lost = settle(found.decided)
    chosen = Counter(p.vote.chosen.model for p in found.decided if p.vote.chosen is not None)
    models = ", ".join(f"{model} {count:,}" for model, count in chosen.most_common())
    num = found.num_read
    told = f"{num:,} vote{'s' if num != 1 else ''} of the workbench, {len(found.decided):,} taken"
    told += f" (chosen: {models})" if models else ""
    if lost.total():
        told += f"; {lost.total():,} of these contradict others on the same two answers and are out"
    return told
