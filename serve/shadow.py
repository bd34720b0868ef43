"""Asking a second model what a client has just asked the first, unseen by the client."""

import asyncio
import contextvars
import logging
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Literal, Protocol

from serve.engine import (
    Completion,
    EngineError,
    EngineModel,
    EngineUnavailable,
    Events,
    Overloaded,
    RequestRefused,
)
from serve.metrics import Metrics
from serve.pair import Pair, ShadowOutcome
from serve.recordings import Recorder
from serve.request_log import detach
from serve.transcript import Transcript

logger = logging.getLogger(__name__)

MAX_RUNNING = 8
GIVE_UP_S = 120.0

NotAsked = Literal["no_pair", "too_many"]
"""Why a shadow was not asked: the client's answer is not whole, or `MAX_RUNNING` are running."""


class Backend(Protocol):
    """Someone who answers. label: the name in headers, metrics and records."""

    @property
    def label(self) -> str:
        """Tells it from all others."""
        ...

    @property
    def model(self) -> EngineModel:
        """What it answers with, as its engine says just now."""
        ...

    def complete(self, request: Completion) -> Events:
        """As `Engine.complete`; raises `Overloaded` before the first event where it is full."""
        ...


class Shadow:
    """Asks one backend in the background, and has each pair of answers recorded.

    Never more than `max_running` at a time, further ones are left out and counted; one that takes
    longer than `give_up_s` seconds is ended. A pair that was asked for is always recorded, also
    where the shadow refuses, fails or is ended: only so do shares of agreement mean something.
    A shadow waits in its engine's line as clients do, so it does take time from those whom that
    engine answers as well.
    """

    def __init__(
        self,
        route: str,
        backend: Backend,
        recorder: Recorder,
        *,
        metrics: Metrics | None = None,
        max_running: int = MAX_RUNNING,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self._route = route
        self._backend = backend
        self._recorder = recorder
        self._metrics = metrics
        self._max_running = max_running
        self._give_up_s = give_up_s
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def label(self) -> str:
        """Who is asked."""
        return self._backend.label

    def ask(
        self,
        request: Completion,
        *,
        client: str,
        request_id: str,
        answered_by: str,
        answered: Transcript,
    ) -> None:
        """Begin to ask; returns at once and never raises."""
        if self._closed or not answered.complete:
            self._count("no_pair")
        elif len(self._running) >= self._max_running:
            self._count("too_many")
        else:
            pair = Pair(
                time=datetime.now(UTC),
                route=self._route,
                request_id=request_id,
                client=client,
                request=request,
                main=answered_by,
                answered=answered,
                shadow=self.label,
            )
            # What it notes is not about the request, whose line in the log may still be open.
            context = contextvars.copy_context()
            context.run(detach)
            task = asyncio.get_running_loop().create_task(self._collect(pair), context=context)
            self._running.add(task)
            task.add_done_callback(lambda task: self._finish(task, pair))

    def _finish(self, task: asyncio.Task[None], pair: Pair) -> None:
        """Called however the task ended, also where it was cancelled before it had begun."""
        self._running.discard(task)
        self._recorder.add(pair)
        self._count(pair.outcome)

    async def _collect(self, pair: Pair) -> None:
        """Fill in the shadow's half; never raises."""
        pair.shadowed = transcript = Transcript()
        try:
            async with (
                asyncio.timeout(self._give_up_s),
                aclosing(self._backend.complete(pair.request)) as events,
            ):
                async for event in events:
                    transcript.add(event)
            pair.outcome = "answered" if transcript.complete else "failed"
        except TimeoutError:
            pair.outcome = "too_slow"
        except (RequestRefused, EngineError) as error:
            pair.outcome, pair.error = _outcome_of(error), error
        except Exception as error:
            pair.outcome, pair.error = "failed", error
            logger.exception("the shadow of %s failed", self._route)

    def _count(self, outcome: ShadowOutcome | NotAsked) -> None:
        if self._metrics is not None:
            self._metrics.count_shadow(self._route, outcome)

    async def close(self) -> None:
        """End what runs and ask no more; may be called twice."""
        self._closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _outcome_of(error: RequestRefused | EngineError) -> ShadowOutcome:
    if isinstance(error, RequestRefused):
        return "refused"
    if isinstance(error, Overloaded):
        return "overloaded"
    return "unavailable" if isinstance(error, EngineUnavailable) else "failed"
