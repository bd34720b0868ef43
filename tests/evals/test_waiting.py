import pytest

from evals.waiting import Pace, is_too_long, retry_wait_s


@pytest.mark.parametrize(
    ("num_failed", "seconds"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 8), (2000, 8)]
)
def test_a_host_that_says_nothing_is_waited_for_longer_each_time(
    num_failed: int, seconds: float
) -> None:
    waits = [retry_wait_s(num_failed, None) for _ in range(200)]
    assert seconds <= min(waits) < max(waits) <= 1.25 * seconds


def test_requests_refused_together_do_not_return_together_nor_too_soon() -> None:
    waits = sorted(retry_wait_s(1, 30.0) for _ in range(64))
    assert waits[0] >= 30
    assert waits[-1] <= 37.5
    # Of 64 evenly spread over 7.5 s, about 9 fall into any one second.
    assert max(sum(start <= one < start + 1 for one in waits) for start in waits) < 30


def test_ten_minutes_are_waited_for_and_not_more() -> None:
    assert not is_too_long(None)
    assert not is_too_long(600)
    assert is_too_long(601)


def test_requests_get_their_turns_evenly() -> None:
    pace = Pace(120)
    assert [pace.wait_s(10.0) for _ in range(4)] == [0, 0.5, 1.0, 1.5]
    assert pace.wait_s(11.9) == pytest.approx(0.1)
    # What was not used is not made up for.
    assert [pace.wait_s(100.0) for _ in range(3)] == [0, 0.5, 1.0]


def test_without_a_limit_nobody_waits() -> None:
    assert [Pace(None).wait_s(1.0) for _ in range(3)] == [0, 0, 0]
