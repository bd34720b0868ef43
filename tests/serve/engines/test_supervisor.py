"""With real processes that end when they are told to."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from configs.errors import UserError
from serve.engine import EngineUnavailable
from serve.engines.supervisor import Supervisor


class Sleeper:
    """A process that ends after a while."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.num_ends = 0

    async def wait(self) -> str:
        return f"code {await self.process.wait()}"

    async def end(self) -> None:
        self.num_ends += 1
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Launcher:
    """Starts processes. lifetimes: how long each lives in seconds, None for one that fails."""

    def __init__(self, *lifetimes: float | None) -> None:
        self.lifetimes = list(lifetimes)
        self.times: list[float] = []
        self.sleepers: list[Sleeper] = []

    async def __call__(self) -> Sleeper:
        self.times.append(time.monotonic())
        lifetime = self.lifetimes.pop(0)
        if lifetime is None:
            raise UserError("nothing to load")
        process = await asyncio.create_subprocess_exec("sleep", str(lifetime))
        self.sleepers.append(Sleeper(process))
        return self.sleepers[-1]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engines.supervisor.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("serve.engines.supervisor.LONGEST_PAUSE_S", 0.3)


def run(
    launcher: Launcher, work: Callable[[Supervisor[Sleeper]], Awaitable[None]]
) -> Supervisor[Sleeper]:
    async def supervise() -> Supervisor[Sleeper]:
        supervisor = Supervisor(launcher, name="sleep")
        try:
            await work(supervisor)
        finally:
            await supervisor.close()
        assert all(one.process.returncode is not None for one in launcher.sleepers)
        return supervisor

    return asyncio.run(supervise())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_pauses_grow_up_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    launcher = Launcher(0, 0, None, 0, 60)

    async def work(supervisor: Supervisor[Sleeper]) -> None:
        await supervisor.start()
        await until(lambda: len(launcher.times) == 5 and supervisor.ready)

    supervisor = run(launcher, work)
    pauses = [after - before for before, after in zip(launcher.times, launcher.times[1:])]  # noqa: B905
    for pause, expected in zip(pauses, (0.1, 0.2, 0.3, 0.3), strict=True):
        assert expected <= pause < expected + 0.15
    assert supervisor.num_restarts == 3
    assert "nothing to load" in caplog.text


def test_pauses_begin_anew_after_a_steady_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engines.supervisor.STEADY_S", 0.2)
    launcher = Launcher(0, 0, 0.3, 60)

    async def work(supervisor: Supervisor[Sleeper]) -> None:
        await supervisor.start()
        await until(lambda: len(launcher.times) == 4)

    run(launcher, work)
    assert launcher.times[3] - launcher.times[2] < 0.3 + 0.1 + 0.1


def test_the_first_failure_is_told_and_final() -> None:
    launcher = Launcher(None, 60)

    async def work(supervisor: Supervisor[Sleeper]) -> None:
        with pytest.raises(UserError, match="nothing to load"):
            await supervisor.start()
        await asyncio.sleep(0.2)
        assert not supervisor.ready
        with pytest.raises(EngineUnavailable):
            _ = supervisor.child

    run(launcher, work)
    assert len(launcher.times) == 1


def test_an_end_is_told_and_one_that_was_given_up_is_replaced() -> None:
    launcher = Launcher(60, 60)
    ends: list[bool] = []

    async def work(_: Supervisor[Sleeper]) -> None:
        supervisor = Supervisor(launcher, name="sleep", on_end=lambda: ends.append(True))
        await supervisor.start()
        first = supervisor.child
        await supervisor.give_up(first, "it is silent")
        assert not supervisor.ready
        await supervisor.give_up(first, "it is silent")
        await until(lambda: supervisor.ready)
        assert supervisor.child is launcher.sleepers[1]
        await supervisor.give_up(first, "late")
        assert supervisor.ready, "another is not to be blamed"
        await supervisor.close()

    run(launcher, work)
    assert ends == [True], "closing is no end of its own"
    assert launcher.sleepers[1].process.returncode is not None


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async def never() -> Sleeper:
        await asyncio.sleep(60)
        raise AssertionError

    async def cancel() -> None:
        supervisor = Supervisor(never, name="sleep")
        start = asyncio.create_task(supervisor.start())
        await asyncio.sleep(0.05)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(cancel())
