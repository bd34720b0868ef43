"""Keeping an engine's process alive: its first start, its restarts, and an end that leaves nothing.

A crash of an engine's native code must neither end the interface nor leave it without an engine.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from configs.errors import UserError
from serve.engine import EngineUnavailable

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A child that lived this long did not die of what its start ran into: pauses begin anew."""


class Child(Protocol):
    """A running process that answers."""

    async def wait(self) -> str:
        """Return once it has ended, with how and its last words; may be called again."""
        ...

    async def end(self) -> None:
        """End it whatever state it is in, and remove what it left; may be called twice."""
        ...


C = TypeVar("C", bound=Child)


class Supervisor(Generic[C]):
    """Starts a child, and starts another whenever one ends, until it is closed."""

    def __init__(
        self,
        launch: Callable[[], Awaitable[C]],
        *,
        name: str,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """launch: starts a child and returns once it answers, leaving nothing behind where it fails
        or is cancelled; name: for the log; on_end: told of each end that was not asked for.
        """
        self._launch = launch
        self._name = name
        self._on_end = on_end
        self._child: C | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._pause_s = FIRST_PAUSE_S
        self.num_restarts = 0
        """Children that took the place of one that had ended."""

    @property
    def ready(self) -> bool:
        """Whether there is a child that answers."""
        return self._child is not None

    @property
    def child(self) -> C:
        """The child that answers. Raises `EngineUnavailable` while there is none."""
        if self._child is None:
            state = "has been closed" if self._closed else "is being started"
            raise EngineUnavailable(
                f"the engine {state}", retry_after_s=max(1.0, 2 * self._pause_s)
            )
        return self._child

    async def start(self) -> None:
        """Launch the first child. Raises what `launch` raises, `UserError` among it, and
        `EngineUnavailable` where it is closed meanwhile.
        """
        assert self._task is None, "a supervisor is started once"
        if self._closed:
            raise _closed()
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_alive(first))
        # It may be cancelled before its first step.
        self._task.add_done_callback(lambda _: _fail(first, _closed()))
        try:
            await first
        except asyncio.CancelledError:
            await self.close()
            raise

    async def give_up(self, child: C, why: str) -> None:
        """End a child that is of no use any more; another is started in its place."""
        if child is self._child:
            self._child = None
            logger.error("%s is ended: %s", self._name, why)
            await child.end()

    async def close(self) -> None:
        """End the child, or its launch, for good; may be called at any time, and twice."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.shield(_ended(self._task))

    async def _keep_alive(self, first: asyncio.Future[None]) -> None:
        try:
            child = await self._launch()
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            _fail(first, _closed() if cancelled else error)
            if isinstance(error, Exception):
                return  # told by `start`
            raise
        if not first.done():
            first.set_result(None)
        while True:
            await self._watch(child)
            child = await self._launch_again()
            self.num_restarts += 1

    async def _watch(self, child: C) -> None:
        """Return once the child has ended."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._child = child
        try:
            said = await child.wait()
        finally:
            self._child = None
            await asyncio.shield(child.end())
        if loop.time() - started >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        logger.error("%s ended, and is started again in %g s: %s", self._name, self._pause_s, said)
        if self._on_end is not None:
            self._on_end()

    async def _launch_again(self) -> C:
        while True:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                return await self._launch()
            except (UserError, OSError) as error:
                logger.error(
                    "%s could not be started again, next try in %g s: %s",
                    self._name,
                    self._pause_s,
                    error,
                )


def _closed() -> EngineUnavailable:
    return EngineUnavailable("the engine has been closed")


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for a task however it ends."""
    await asyncio.wait([task])
