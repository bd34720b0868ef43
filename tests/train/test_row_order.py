import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.row_order import count_steps, order_rows, plan_sequences

LENGTHS = [(7 * number) % 31 + 1 for number in range(50)]


def order(num_steps: int, *, batch_rows: int = 5, seed: int = 1) -> list[int]:
    return order_rows(
        LENGTHS, num_steps=num_steps, batch_rows=batch_rows, micro_batch_rows=1, seed=seed
    )


def test_each_pass_meets_every_row_once() -> None:
    rows = order(20)
    assert sorted(rows[:50]) == list(range(50))
    assert sorted(rows[50:]) == list(range(50))
    assert rows[:50] != rows[50:]


def test_rows_share_a_step_by_chance() -> None:
    rows = order(10)
    means = [np.mean([LENGTHS[row] for row in rows[at : at + 5]]) for at in range(0, 50, 5)]
    assert max(means) - min(means) < 20
    assert means != sorted(means)


def test_micro_batches_of_a_step_hold_about_the_same_number_of_tokens() -> None:
    lengths = np.random.default_rng(3).integers(1, 1000, 64).tolist()
    rows = order_rows(lengths, num_steps=2, batch_rows=32, micro_batch_rows=8, seed=1)
    for step in (rows[:32], rows[32:]):
        sums = [sum(lengths[row] for row in step[at : at + 8]) for at in range(0, 32, 8)]
        assert max(sums) < 1.1 * min(sums)


@given(st.sampled_from([(8, 1), (8, 2), (8, 8), (6, 3), (12, 4)]), st.integers(0, 5))
def test_how_a_step_is_cut_does_not_change_its_rows(sizes: tuple[int, int], seed: int) -> None:
    batch_rows, micro_batch_rows = sizes
    cut, whole = (
        order_rows(LENGTHS, num_steps=3, batch_rows=batch_rows, micro_batch_rows=micro, seed=seed)
        for micro in (micro_batch_rows, batch_rows)
    )
    for at in range(0, 3 * batch_rows, batch_rows):
        assert sorted(cut[at : at + batch_rows]) == sorted(whole[at : at + batch_rows])


def test_the_order_is_decided_by_the_seed() -> None:
    first = order(4)
    assert first == order(4)
    assert first != order(4, seed=2)
    # A longer training begins as the shorter one does.
    assert order(8)[:20] == first


def test_more_rows_are_asked_for_than_there_are() -> None:
    rows = order_rows([5, 3], num_steps=3, batch_rows=3, micro_batch_rows=3, seed=0)
    assert len(rows) == 9
    assert set(rows) == {0, 1}


def test_steps_from_passes() -> None:
    assert count_steps(100, batch_rows=16, num_steps=7, num_epochs=None) == 7
    assert count_steps(100, batch_rows=10, num_steps=None, num_epochs=1.5) == 15
    assert count_steps(3, batch_rows=16, num_steps=None, num_epochs=1) == 1


def test_without_packing_each_row_is_a_sequence() -> None:
    assert plan_sequences(np.array([4, 9, 2]), capacity=None, seed=1) == [[0], [1], [2]]


def test_packs_hold_every_row_once_and_never_too_much() -> None:
    lengths = np.array(LENGTHS)
    packs = plan_sequences(lengths, capacity=64, seed=1)
    assert sorted(row for pack in packs for row in pack) == list(range(50))
    assert max(lengths[pack].sum() for pack in packs) <= 64
    assert len(packs) <= -(-sum(LENGTHS) // 64) + 1


def test_rows_of_one_length_are_packed_by_chance_and_by_the_seed() -> None:
    lengths = np.full(40, 10)
    packs = plan_sequences(lengths, capacity=40, seed=1)
    assert packs == plan_sequences(lengths, capacity=40, seed=1)
    assert packs != plan_sequences(lengths, capacity=40, seed=2)
    neighbours = sum(sorted(pack) == list(range(min(pack), min(pack) + 4)) for pack in packs)
    assert neighbours < 3


def test_a_row_longer_than_a_pack_is_not_cut() -> None:
    with pytest.raises(ValueError, match="too long"):
        plan_sequences(np.array([4, 65]), capacity=64, seed=1)
