"""Which texts say nearly the same, so that a split does not put one in training, one in the test.

Two texts are near duplicates when the Jaccard similarity of their word n-gram sets reaches a
threshold; clusters are the connected components of that relation (as in Lee et al. 2022,
arXiv 2107.06499, who use it to clean training data).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from data.conversation import Conversation

MAX_HELD_OUT_CLUSTER = 20
WORD = re.compile(r"\w+")


def cluster_near_duplicates(
    texts: Sequence[str], *, ngram: int = 3, threshold: float = 0.7
) -> list[int]:
    """The cluster of each text, named by the smallest index in it: `[0, 1, 0]` joins 0 and 2.

    Words are runs of letters and digits, casefolded; a text of fewer than `ngram` words counts as
    one n-gram, so short texts (and scripts without spaces) join only when their words are equal.
    Raises ValueError unless ngram >= 1 and 0 < threshold <= 1.

    Exact, not approximate: only pairs that share one of their rarest n-grams are compared (prefix
    filter, Bayardo et al. 2007, doi 10.1145/1242572.1242591), and none that could reach the
    threshold is missed. 3,000 licence notices take 0.2 s, 100,000 texts of 100 words half a minute
    and 1.5 GB. The work grows with the square of the largest cluster; MinHash-LSH would bound it
    and the memory for millions of rows, at the price of missing some pairs and of a dependency.
    """
    if ngram < 1 or not 0 < threshold <= 1:
        raise ValueError(f"need ngram >= 1 and 0 < threshold <= 1, got {ngram} and {threshold}")
    # 0.7 as a float lies below 7/10; as a fraction a pair of exactly 7 in 10 is decided rightly.
    limit = Fraction(threshold).limit_denominator(1_000_000)
    parents = list(range(len(texts)))
    first_with: dict[frozenset[int], int] = {}
    for index, ngrams in enumerate(_ngram_sets(texts, ngram=ngram)):
        parents[index] = first_with.setdefault(ngrams, index)
    _join_similar({index: ngrams for ngrams, index in first_with.items()}, parents, limit=limit)
    return [_root(parents, index) for index in range(len(texts))]


class UniqueRows(NamedTuple):
    """Rows with one answer to each question, and how many others were dropped, by rule."""

    rows: list[Conversation]
    dropped: dict[str, int]


def drop_repeats(rows: Sequence[Conversation]) -> UniqueRows:
    """Keep the first row of each question; none of a question that has several answers.

    Rows are one question, one answer; questions are compared casefolded.
    """
    by_question: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        by_question[row.messages[0]["content"].casefold()].append(row)
    kept: list[Conversation] = []
    dropped: Counter[str] = Counter()
    for same in by_question.values():
        if len({row.messages[-1]["content"] for row in same}) > 1:
            dropped["question with several answers"] += len(same)
        else:
            kept.append(same[0])
            dropped["repeated question"] += len(same) - 1
    return UniqueRows(rows=kept, dropped={rule: count for rule, count in dropped.items() if count})


def group_near_duplicates(
    rows: Sequence[Conversation],
    texts: Sequence[str],
    *,
    ngram: int = 3,
    threshold: float = 0.7,
) -> list[Conversation]:
    """The rows with `group` set to the id of the first row of their near-duplicate cluster.

    texts: for each row, the text that decides. Clusters of more than `MAX_HELD_OUT_CLUSTER` rows
    go to training: held out, one of them could make up a tenth of the test questions.
    """
    clusters = cluster_near_duplicates(texts, ngram=ngram, threshold=threshold)
    sizes = Counter(clusters)
    return [
        replace(
            row,
            group=rows[cluster].id,
            side="train" if sizes[cluster] > MAX_HELD_OUT_CLUSTER else row.side,
        )
        for row, cluster in zip(rows, clusters, strict=True)
    ]


def _ngram_sets(texts: Sequence[str], *, ngram: int) -> list[frozenset[int]]:
    """Each text as a set of n-gram numbers, rarest n-grams having the smallest numbers."""
    numbers: dict[tuple[str, ...], int] = {}
    frequency: Counter[int] = Counter()
    sets: list[set[int]] = []
    for text in texts:
        words = WORD.findall(text.casefold())
        starts = range(max(1, len(words) - ngram + 1))
        grams = [tuple(words[start : start + ngram]) for start in starts]
        sets.append({numbers.setdefault(gram, len(numbers)) for gram in grams})
        frequency.update(sets[-1])
    rarest_first = sorted(range(len(numbers)), key=lambda number: (frequency[number], number))
    ranks = {number: rank for rank, number in enumerate(rarest_first)}
    return [frozenset(ranks[number] for number in grams) for grams in sets]


def _join_similar(sets: dict[int, frozenset[int]], parents: list[int], *, limit: Fraction) -> None:
    """Join in `parents` every two sets whose Jaccard similarity is at least `limit`.

    Two sets that similar share at least limit × size n-grams of either, hence one among the first
    size − ceil(limit × size) + 1 of each: only those are indexed.
    """
    holders: dict[int, list[int]] = defaultdict(list)
    for index, grams in sorted(sets.items(), key=lambda item: (len(item[1]), item[0])):
        smallest = ceil(limit * len(grams))
        candidates: set[int] = set()
        for gram in sorted(grams)[: len(grams) - smallest + 1]:
            candidates.update(holders[gram])
            holders[gram].append(index)
        for other in candidates:
            if len(sets[other]) < smallest:
                continue
            root, other_root = _root(parents, index), _root(parents, other)
            if root != other_root and _similar(grams, sets[other], limit=limit):
                parents[max(root, other_root)] = min(root, other_root)


def _similar(left: frozenset[int], right: frozenset[int], *, limit: Fraction) -> bool:
    shared = len(left & right)
    union = len(left) + len(right) - shared
    return shared * limit.denominator >= union * limit.numerator


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index
