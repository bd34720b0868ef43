"""Packs against a best-fit decreasing written out row by row, and against the best possible."""

import os
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tokens.packing import Lengths, PackNumbers, pack_efficiency, plan_packs

CAPACITIES = st.integers(1, 60)


@st.composite
def rows_and_capacity(draw: st.DrawFn, most_rows: int = 80) -> tuple[Lengths, int]:
    capacity = draw(CAPACITIES)
    lengths = draw(st.lists(st.integers(1, capacity), max_size=most_rows))
    return np.array(lengths, dtype=np.int32), capacity


def fills(lengths: Lengths, packs: PackNumbers) -> list[int]:
    """Tokens in each pack."""
    return [int(fill) for fill in np.bincount(packs, weights=lengths)]


def reference(lengths: list[int], capacity: int) -> list[int]:
    """Tokens in each pack of best-fit decreasing, by looking at every pack for every row."""
    packs: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [number for number, fill in enumerate(packs) if fill + length <= capacity]
        if fitting:
            packs[max(fitting, key=lambda number: packs[number])] += length
        else:
            packs.append(length)
    return packs


def fewest_packs(lengths: tuple[int, ...], capacity: int) -> int:
    """The best possible number of packs, by trying every choice."""

    @cache
    def place(rest: tuple[int, ...], spaces: tuple[int, ...]) -> int:
        if not rest:
            return len(spaces)
        first, others = rest[0], rest[1:]
        choices = [
            place(others, tuple(sorted((*spaces[:at], space - first, *spaces[at + 1 :]))))
            for at, space in enumerate(spaces)
            if space >= first
        ]
        return min([*choices, place(others, tuple(sorted((*spaces, capacity - first))))])

    return place(lengths, ())


@given(rows_and_capacity())
def test_packs_are_those_of_best_fit_decreasing_row_by_row(rows: tuple[Lengths, int]) -> None:
    lengths, capacity = rows
    packs = plan_packs(lengths, capacity)
    assert sorted(fills(lengths, packs)) == sorted(reference(lengths.tolist(), capacity))


@given(rows_and_capacity())
def test_every_row_is_in_one_pack_and_no_pack_is_over_capacity_or_empty(
    rows: tuple[Lengths, int],
) -> None:
    lengths, capacity = rows
    packs = plan_packs(lengths, capacity)
    assert packs.shape == lengths.shape
    assert all(1 <= fill <= capacity for fill in fills(lengths, packs))
    assert set(packs.tolist()) == set(range(len(set(packs.tolist()))))


@given(rows_and_capacity(most_rows=8))
def test_at_most_eleven_ninths_of_the_fewest_packs_possible(rows: tuple[Lengths, int]) -> None:
    lengths, capacity = rows
    best = fewest_packs(tuple(lengths.tolist()), capacity)
    assert len(set(plan_packs(lengths, capacity).tolist())) <= 11 / 9 * best + 6 / 9


def test_a_plan_written_out() -> None:
    # 6 opens pack 0, the fives pack 1 together, 4 fills pack 0, then 3 and 2 share the third.
    assert plan_packs(np.array([2, 5, 4, 6, 5, 3]), 10).tolist() == [2, 1, 0, 0, 1, 2]
    # Of the spaces 4 (pack 0) and 3 (pack 1), the tighter one takes the 3.
    assert plan_packs(np.array([6, 7, 3]), 10).tolist() == [1, 0, 0]


def test_rows_of_one_length_go_in_their_order() -> None:
    assert plan_packs(np.array([4, 4, 4, 4, 4]), 8).tolist() == [0, 0, 1, 1, 2]
    lengths = np.random.default_rng(2).integers(5, 8, 10_000)
    packs = plan_packs(lengths, 8)
    assert all((np.diff(packs[lengths == length]) > 0).all() for length in (5, 6, 7))


def test_the_same_lengths_are_packed_the_same() -> None:
    lengths = np.random.default_rng(5).integers(1, 2049, 20_000)
    assert plan_packs(lengths, 2048).tolist() == plan_packs(lengths.copy(), 2048).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_the_type_of_the_numbers_changes_nothing(dtype: type[np.integer]) -> None:
    lengths = np.array([2, 5, 4, 6, 5, 3], dtype=dtype)
    assert plan_packs(lengths, 10).tolist() == [2, 1, 0, 0, 1, 2]
    assert pack_efficiency(np.array([200, 100], dtype=dtype), np.array([0, 1]), 256) == 300 / 512


def test_no_rows_need_no_packs() -> None:
    nothing = np.array([], dtype=np.int64)
    assert plan_packs(nothing, 8).tolist() == []
    with pytest.raises(ValueError, match="no rows"):
        pack_efficiency(nothing, nothing, 8)


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        (np.array([3, 9, 1]), "row 1 is too long: 9 tokens, and a pack holds 1 to 8"),
        (np.array([3, 0]), "row 1 is empty"),
        (np.array([3, -2]), "row 1 is empty"),
        (np.array([1.5]), "whole numbers of one axis"),
        (np.array([[1, 2]]), r"of shape \(1, 2\)"),
    ],
)
def test_senseless_lengths_are_refused(lengths: Lengths, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan_packs(lengths, 8)


def test_efficiency_is_the_share_of_positions_that_hold_a_token() -> None:
    lengths = np.array([6, 4, 5])
    assert pack_efficiency(lengths, np.array([0, 0, 1]), 10) == 15 / 20
    assert pack_efficiency(np.array([7]), np.array([0]), 7) == 1.0


def test_a_million_rows_are_planned_within_seconds() -> None:
    lengths = np.random.default_rng(7).integers(1, 2049, 1_000_000)
    started = time.process_time()
    packs = plan_packs(lengths, 2048)
    assert time.process_time() - started < 3  # placing row by row takes ten times as long
    assert max(fills(lengths, packs)) <= 2048
    assert pack_efficiency(lengths, packs, 2048) > 0.99


def test_no_more_packs_than_trl_makes_of_the_same_lengths() -> None:
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    lengths = np.random.default_rng(3).integers(1, 600, 800)  # one batch of datasets.map
    rows = Dataset.from_dict({"input_ids": [[1] * length for length in lengths.tolist()]})
    theirs = pack_dataset(rows, 600, strategy="bfd")["seq_lengths"]
    packs = plan_packs(lengths, 600)
    assert Counter(fills(lengths, packs)) == Counter(sum(pack) for pack in theirs)


@pytest.mark.corpora
def test_real_rows_fill_at_least_97_percent_of_the_positions() -> None:
    folder = os.environ.get("TUNERY_CORPORA")
    if not folder:
        pytest.skip("TUNERY_CORPORA is not set")
    questions = (Path(folder) / "nl2bash.nl").read_text().splitlines()
    answers = (Path(folder) / "nl2bash.cm").read_text().splitlines()
    # About what a tokenizer makes of a row, in bytes: no tokenizer is in the repository.
    lengths = np.array(
        [len((q + a).encode()) // 4 + 30 for q, a in zip(questions, answers, strict=True)]
    )
    packs = plan_packs(lengths, 2048)
    assert len(lengths) == 12_607
    assert pack_efficiency(lengths, packs, 2048) >= 0.97
