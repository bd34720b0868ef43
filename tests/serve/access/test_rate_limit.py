"""The bucket, on a clock that the tests set."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.access.rate_limit import NS_PER_S, RateLimiter


class Clock:
    """Tells the time that was set."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


limits = st.one_of(st.integers(1, 20), st.integers(1, 100_000))
starts = st.integers(0, 10**18)
# Pauses between requests: none, of the order of a limit's interval, and long ones.
pauses = st.one_of(st.just(0), st.integers(0, 10**8), st.integers(0, 90 * NS_PER_S))


@given(limits, starts, st.lists(pauses, max_size=300))
def test_no_window_lets_in_more_than_its_share_and_one_minutes_worth(
    per_minute: int, start_ns: int, pauses_ns: list[int]
) -> None:
    clock = Clock(start_ns)
    limiter = RateLimiter(clock_ns=clock)
    let_in: list[int] = []
    for pause_ns in pauses_ns:
        clock.now_ns += pause_ns
        if limiter.take("client", per_minute=per_minute) == 0:
            let_in.append(clock.now_ns)
    for first, begin_ns in enumerate(let_in):
        for last, end_ns in enumerate(let_in[first:], start=first):
            seconds = Fraction(end_ns - begin_ns, NS_PER_S)
            assert last - first + 1 <= per_minute * (1 + seconds / 60)


@given(st.integers(1, 200), starts)
def test_a_minutes_worth_comes_at_once_and_not_one_more(per_minute: int, start_ns: int) -> None:
    limiter = RateLimiter(clock_ns=Clock(start_ns))
    waits = [limiter.take("client", per_minute=per_minute) for _ in range(per_minute + 1)]
    assert waits[:-1] == [0] * per_minute
    assert 0 < waits[-1] <= 60 / per_minute + 1e-9


@given(st.integers(1, 200), starts, st.lists(pauses, max_size=400))
def test_whoever_waits_as_told_is_let_in_and_not_a_nanosecond_before(
    per_minute: int, start_ns: int, pauses_ns: list[int]
) -> None:
    clock = Clock(start_ns)
    limiter = RateLimiter(clock_ns=clock)
    for pause_ns in pauses_ns:
        clock.now_ns += pause_ns
        wait_s = limiter.take("client", per_minute=per_minute)
        assert wait_s >= 0
        if wait_s == 0:
            continue
        wait_ns = round(wait_s * NS_PER_S)
        clock.now_ns += wait_ns - 1
        assert limiter.take("client", per_minute=per_minute) == pytest.approx(1e-9)
        clock.now_ns += 1
        assert limiter.take("client", per_minute=per_minute) == 0


@given(st.integers(1, 500))
def test_the_rate_is_never_above_the_limit_for_who_comes_as_early_as_can_be(
    per_minute: int,
) -> None:
    clock = Clock()
    limiter = RateLimiter(clock_ns=clock)
    for num_let_in in range(per_minute + 50):
        while wait_s := limiter.take("client", per_minute=per_minute):
            clock.now_ns += round(wait_s * NS_PER_S)
        seconds = Fraction(clock.now_ns, NS_PER_S)
        assert num_let_in + 1 <= per_minute * (1 + seconds / 60)


def test_the_rate_holds_in_the_long_run() -> None:
    clock = Clock()
    limiter = RateLimiter(clock_ns=clock)
    num_let_in = 0
    for second in range(3600):
        clock.now_ns = second * NS_PER_S
        for _ in range(3):
            num_let_in += limiter.take("client", per_minute=60) == 0
    assert num_let_in == 60 + 3599  # the minute's worth that was there, then one a second


def test_clients_share_nothing_and_refusals_cost_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(clock_ns=clock)
    assert limiter.take("a", per_minute=1) == 0
    assert limiter.take("b", per_minute=1) == 0
    for _ in range(100):
        assert limiter.take("a", per_minute=1) == 60
    clock.now_ns = 60 * NS_PER_S
    assert limiter.take("a", per_minute=1) == 0


def test_a_limit_that_changes_counts_from_then_on() -> None:
    clock = Clock()
    limiter = RateLimiter(clock_ns=clock)
    assert limiter.take("a", per_minute=1) == 0
    assert limiter.take("a", per_minute=1) > 0
    clock.now_ns = NS_PER_S
    assert limiter.take("a", per_minute=600) == 0


def test_the_forgotten_begin_anew_and_the_others_go_on() -> None:
    limiter = RateLimiter(clock_ns=Clock())
    for client in ("a", "b"):
        assert limiter.take(client, per_minute=1) == 0
    limiter.keep({"b", "c"})
    assert limiter.take("a", per_minute=1) == 0
    assert limiter.take("b", per_minute=1) > 0
