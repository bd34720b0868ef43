"""Near-duplicate clusters against brute force, and the rules built on them."""

import random
import time
from itertools import combinations

import pytest

from data.conversation import Conversation, question_and_answer
from data.near_duplicates import (
    MAX_HELD_OUT_CLUSTER,
    cluster_near_duplicates,
    drop_repeats,
    group_near_duplicates,
)


def brute_force(texts: list[str], *, ngram: int, numerator: int) -> list[int]:
    """Clusters at a threshold of numerator tenths, from all pairs, without any filter."""
    sets = []
    for text in texts:
        words = text.lower().split()
        sets.append(
            {" ".join(words[start : start + ngram]) for start in range(len(words) - ngram + 1)}
            or {" ".join(words)}
        )
    labels = list(range(len(texts)))
    for left, right in combinations(range(len(texts)), 2):
        shared, union = len(sets[left] & sets[right]), len(sets[left] | sets[right])
        if 10 * shared >= numerator * union:
            old, new = sorted((labels[left], labels[right]), reverse=True)
            labels = [new if label == old else label for label in labels]
    return labels


def edited_texts(*, num_texts: int, seed: int) -> list[str]:
    """Texts of 1 to 40 words, most of them an earlier one with a few words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(30)]
    texts = [" ".join(rng.choices(vocabulary, k=20))]
    while len(texts) < num_texts:
        words = rng.choice(texts).split()
        if rng.random() < 0.3:
            words = rng.choices(vocabulary, k=rng.randint(1, 40))
        for _ in range(rng.randint(0, 4)):
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("ngram", [1, 2, 3])
@pytest.mark.parametrize("numerator", [5, 7, 10])
def test_clusters_are_those_of_comparing_all_pairs(ngram: int, numerator: int) -> None:
    texts = edited_texts(num_texts=300, seed=10 * ngram + numerator)
    expected = brute_force(texts, ngram=ngram, numerator=numerator)
    assert 10 < len(set(expected)) < 300  # neither trivial answer
    assert cluster_near_duplicates(texts, ngram=ngram, threshold=numerator / 10) == expected


def test_a_pair_of_exactly_seven_in_ten_is_joined() -> None:
    texts = ["a b c d e f g h i", "a b c d e f g j"]  # 7 words of 10 in common
    assert cluster_near_duplicates(texts, ngram=1, threshold=0.7) == [0, 0]
    assert cluster_near_duplicates(texts, ngram=1, threshold=0.71) == [0, 1]


def test_clusters_are_connected_components_named_by_their_first_row() -> None:
    chain = ["x y z", "a b c d e f g h i j", "b c d e f g h i j k", "c d e f g h i j k l"]
    assert cluster_near_duplicates(chain, ngram=1, threshold=0.8) == [0, 1, 1, 1]
    # The ends of the chain are not near duplicates of each other.
    assert cluster_near_duplicates([chain[1], chain[3]], ngram=1, threshold=0.8) == [0, 1]


def test_case_and_punctuation_do_not_matter() -> None:
    assert cluster_near_duplicates(["The MIT license.", "the mit LICENSE", "MIT"]) == [0, 0, 2]


def test_short_and_empty_texts() -> None:
    assert cluster_near_duplicates([]) == []
    assert cluster_near_duplicates(["", "one", "one two", "one", "!"]) == [0, 1, 2, 1, 0]


def test_a_common_header_does_not_make_every_pair_a_candidate() -> None:
    header = " ".join(f"header{word}" for word in range(60))
    texts = [f"{header} {' '.join(f'w{row}x{word}' for word in range(40))}" for row in range(4000)]
    started = time.perf_counter()
    assert cluster_near_duplicates(texts) == list(range(4000))
    assert time.perf_counter() - started < 5  # 8 million pairs take longer


@pytest.mark.parametrize(("ngram", "threshold"), [(0, 0.7), (3, 0.0), (3, 1.01)])
def test_senseless_settings_are_refused(ngram: int, threshold: float) -> None:
    with pytest.raises(ValueError, match="ngram >= 1"):
        cluster_near_duplicates(["a"], ngram=ngram, threshold=threshold)


def rows_of(questions: list[str], answer: str = "yes") -> list[Conversation]:
    return [
        question_and_answer(question, answer, id=f"row{number}")
        for number, question in enumerate(questions)
    ]


def test_groups_are_named_by_their_first_row_and_leave_the_rows_alone() -> None:
    rows = rows_of(["Q1", "Q2", "Q3"])
    grouped = group_near_duplicates(rows, ["a b c d", "x y z", "a b c d"])
    assert [row.group for row in grouped] == ["row0", "row1", "row0"]
    assert [row.messages for row in grouped] == [row.messages for row in rows]
    assert [row.side for row in grouped] == ["", "", ""]
    assert [row.group for row in rows] == ["", "", ""]


@pytest.mark.parametrize(("extra", "side"), [(0, ""), (1, "train")])
def test_clusters_too_large_to_hold_out_are_trained_on(extra: int, side: str) -> None:
    texts = ["same words here"] * (MAX_HELD_OUT_CLUSTER + extra) + ["something else again"]
    grouped = group_near_duplicates(rows_of(texts), texts)
    assert {row.side for row in grouped[:-1]} == {side}
    assert grouped[-1].side == ""


def test_repeated_questions_are_kept_once_and_contradictory_ones_never() -> None:
    rows = [
        question_and_answer("What?", "this", id="1"),
        question_and_answer("Who?", "me", id="2"),
        question_and_answer("WHAT?", "this", id="3"),
        question_and_answer("who?", "you", id="4"),
        question_and_answer("Where?", "here", id="5"),
    ]
    unique = drop_repeats(rows)
    assert [row.id for row in unique.rows] == ["1", "5"]
    assert unique.dropped == {"repeated question": 1, "question with several answers": 2}
    assert drop_repeats(rows[-1:]).dropped == {}
