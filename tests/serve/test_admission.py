"""The line in front of an engine: its length, its order, and what those hear who are not let in."""

import asyncio

import pytest

from serve.admission import WaitingLine
from serve.engine import Overloaded


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def hold(line: WaitingLine, done: asyncio.Event, order: list[int], number: int) -> None:
    async with line.place():
        order.append(number)
        await done.wait()


def test_slots_are_taken_first_come_first_served() -> None:
    async def check() -> None:
        line, order = WaitingLine(num_slots=2, max_waiting=3), list[int]()
        events = [asyncio.Event() for _ in range(5)]
        tasks = []
        for number, event in enumerate(events):
            tasks.append(asyncio.ensure_future(hold(line, event, order, number)))
            await settle()
        assert (order, line.running, line.waiting) == ([0, 1], 2, 3)
        events[1].set()
        await settle()
        assert (order, line.running, line.waiting) == ([0, 1, 2], 2, 2)
        for event in events:
            event.set()
        await asyncio.gather(*tasks)
        assert (order, line.running, line.waiting) == ([0, 1, 2, 3, 4], 0, 0)

    asyncio.run(check())


@pytest.mark.parametrize("max_waiting", [0, 2])
def test_who_finds_the_line_full_hears_so_at_once(max_waiting: int) -> None:
    async def check() -> None:
        line, done = WaitingLine(num_slots=1, max_waiting=max_waiting), asyncio.Event()
        tasks = [
            asyncio.ensure_future(hold(line, done, [], number)) for number in range(1 + max_waiting)
        ]
        await settle()
        with pytest.raises(Overloaded, match=f"1 requests are running and {max_waiting} are"):
            async with asyncio.timeout(1), line.place():
                raise AssertionError("there was no place")
        done.set()
        await asyncio.gather(*tasks)
        async with asyncio.timeout(1), line.place():
            assert line.running == 1

    asyncio.run(check())


def test_who_gives_up_waiting_leaves_the_line() -> None:
    async def check() -> None:
        line, done = WaitingLine(num_slots=1, max_waiting=1), asyncio.Event()
        running = asyncio.ensure_future(hold(line, done, [], 0))
        await settle()
        waiting = asyncio.ensure_future(hold(line, done, [], 1))
        await settle()
        assert line.waiting == 1
        waiting.cancel()
        await settle()
        assert (line.waiting, line.running) == (0, 1)
        done.set()
        await running
        async with asyncio.timeout(1), line.place():
            assert line.running == 1

    asyncio.run(check())


def test_the_time_to_come_back_follows_how_long_requests_take() -> None:
    async def seconds_told(seconds: float) -> float:
        line = WaitingLine(num_slots=1, max_waiting=0)
        for _ in range(40):
            async with line.place():
                await asyncio.sleep(seconds)
        async with line.place():
            with pytest.raises(Overloaded) as error:
                async with line.place():
                    raise AssertionError("there was no place")
        return error.value.retry_after_s

    short, long = asyncio.run(seconds_told(0.0)), asyncio.run(seconds_told(0.02))
    assert short < 0.01
    assert 0.02 <= long < 0.1
