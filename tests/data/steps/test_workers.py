import os
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from configs.cores import usable_cores
from configs.errors import UserError
from data.steps.workers import MIN_PARTS, Workers


def square(number: int) -> tuple[int, int]:
    # Later parts are done sooner.
    time.sleep(0.02 * (3 - number % 4))
    return os.getpid(), number * number


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(limit: int, number: int) -> int:
    if number == limit:
        raise UserError(f"number {number}")
    return number


def threads(_: int) -> str | None:
    return os.environ.get("TOKENIZERS_PARALLELISM")


def test_results_come_in_the_order_of_the_parts_from_other_processes() -> None:
    with Workers(2) as workers:
        found = list(workers.map(square, range(12), may_start=True))
    assert [value for _, value in found] == [number * number for number in range(12)]
    assert os.getpid() not in {pid for pid, _ in found}
    assert len({pid for pid, _ in found}) == 2


@pytest.mark.parametrize(
    ("num_workers", "num_parts", "may_start"),
    [(1, 12, True), (2, MIN_PARTS - 1, True), (2, 12, False)],
    ids=["one worker", "few parts", "may not start"],
)
def test_little_work_is_done_here(num_workers: int, num_parts: int, may_start: bool) -> None:
    with Workers(num_workers) as workers:
        found = list(workers.map(square, range(num_parts), may_start=may_start))
    assert {pid for pid, _ in found} == {os.getpid()}
    assert [value for _, value in found] == [number * number for number in range(num_parts)]


def test_started_processes_are_used_for_little_work_too() -> None:
    with Workers(2) as workers:
        list(workers.map(square, range(MIN_PARTS), may_start=True))
        found = list(workers.map(square, range(2)))
    assert os.getpid() not in {pid for pid, _ in found}


def test_parts_are_taken_as_they_are_needed() -> None:
    taken = []

    def parts() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with Workers(2) as workers:
        results = workers.map(square, parts(), may_start=True)
        next(results)
        assert len(taken) < 10
        results.close()  # type: ignore[attr-defined]


def test_a_worker_that_is_killed_is_told() -> None:
    with (
        Workers(2) as workers,
        pytest.raises(UserError, match="worker process was ended") as caught,
    ):
        list(workers.map(die, range(20), may_start=True))
    assert caught.value.where == "data.num_workers"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_is_the_callers(num_workers: int) -> None:
    with Workers(num_workers) as workers, pytest.raises(UserError, match="number 7"):
        list(workers.map(partial(refuse, 7), range(20), may_start=True))


def test_a_worker_has_one_thread_for_each_library() -> None:
    with Workers(2) as workers:
        assert set(workers.map(threads, range(8), may_start=True)) == {"false"}
    assert "POLARS_MAX_THREADS" not in os.environ


def test_all_usable_cores_are_taken_when_none_is_named() -> None:
    assert Workers(None).num_workers == usable_cores() >= 1
