from train.row_order import count_steps, order_rows

LENGTHS = [(7 * number) % 31 for number in range(50)]


def test_each_pass_meets_every_row_once() -> None:
    order = order_rows(LENGTHS, num_steps=20, batch_rows=5, seed=1)
    assert sorted(order[:50]) == list(range(50))
    assert sorted(order[50:]) == list(range(50))
    assert order[:50] != order[50:]


def test_rows_stand_by_length_inside_a_step_and_by_chance_between_steps() -> None:
    order = order_rows(LENGTHS, num_steps=10, batch_rows=5, seed=1)
    steps = [[LENGTHS[row] for row in order[at : at + 5]] for at in range(0, 50, 5)]
    assert all(step == sorted(step, reverse=True) for step in steps)
    means = [sum(step) / 5 for step in steps]
    assert max(means) - min(means) < 20
    assert means != sorted(means)


def test_the_order_is_decided_by_the_seed() -> None:
    first = order_rows(LENGTHS, num_steps=4, batch_rows=5, seed=1)
    assert first == order_rows(LENGTHS, num_steps=4, batch_rows=5, seed=1)
    assert first != order_rows(LENGTHS, num_steps=4, batch_rows=5, seed=2)
    # A longer training begins as the shorter one does.
    assert order_rows(LENGTHS, num_steps=8, batch_rows=5, seed=1)[:20] == first


def test_more_rows_are_asked_for_than_there_are() -> None:
    order = order_rows([5, 3], num_steps=3, batch_rows=3, seed=0)
    assert len(order) == 9
    assert set(order) == {0, 1}


def test_steps_from_passes() -> None:
    assert count_steps(100, batch_rows=16, num_steps=7, num_epochs=None) == 7
    assert count_steps(100, batch_rows=10, num_steps=None, num_epochs=1.5) == 15
    assert count_steps(3, batch_rows=16, num_steps=None, num_epochs=1) == 1
