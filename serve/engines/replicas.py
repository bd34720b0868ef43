"""Several equal engines behind one: each request goes to one of them, and outlives its end."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from serve.engine import Completion, Engine, EngineModel, EngineUnavailable, Events
from serve.engines.replica_choice import Load, by_prefix, least_loaded, prefix_key

logger = logging.getLogger(__name__)

Routing = Literal["prefix", "least_loaded"]


@dataclass(eq=False)
class _Place:
    """A replica's place; idle: set while it works on nothing."""

    name: str
    engine: Engine
    running: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class ReplicatedEngine:
    """Engines that answer the same models, as one `Engine`.

    replicas: by name; routing: `prefix` sends what begins alike to the same one, whose cache holds
    that beginning, as long as it is not much busier than the others; `least_loaded` to the one
    with the fewest requests; on_retry: told of each request that one replica could not take and
    another is asked for. A request whose replica ends before the first event goes to another one,
    to each at most once; after the first event it ends with an error, never with a second answer.
    """

    def __init__(
        self,
        replicas: Mapping[str, Engine],
        *,
        routing: Routing = "prefix",
        on_retry: Callable[[], None] | None = None,
    ) -> None:
        assert replicas, "no replica to send anything to"
        self._places = [_Place(name, engine) for name, engine in replicas.items()]
        self._routing = routing
        self._on_retry = on_retry
        self._turn = 0

    @property
    def models(self) -> tuple[EngineModel, ...]:
        """Those of the first replica that is ready, which knows their lengths."""
        ready = [place for place in self._places if place.engine.ready]
        return (ready or self._places)[0].engine.models

    @property
    def capacity(self) -> int:
        """That of all replicas together."""
        return sum(place.engine.capacity for place in self._places)

    @property
    def ready(self) -> bool:
        """Whether any replica would answer now."""
        return any(place.engine.ready for place in self._places)

    async def start(self) -> None:
        """Load all of them side by side; raises the first one's `UserError`."""
        await asyncio.gather(*(place.engine.start() for place in self._places))

    async def complete(self, request: Completion) -> Events:
        """See `Engine.complete`."""
        tried: list[_Place] = []
        while True:
            place = self._choose(request, tried)
            started = False
            try:
                async with aclosing(self._answer(place, request)) as events:
                    async for event in events:
                        started = True
                        yield event
                return
            except EngineUnavailable as error:
                tried.append(place)
                if started or len(tried) == len(self._places):
                    raise
                logger.warning("%s could not answer, another is asked: %s", place.name, error)
                if self._on_retry is not None:
                    self._on_retry()

    async def replace(self, name: str, engine: Engine, *, drain_s: float) -> None:
        """Put a new engine into a replica's place: nobody who asks meanwhile is refused.

        The new one is loaded beside the old one, then gets the requests; those that the old one
        works on have `drain_s` seconds to end. Raises what `engine.start` raises: the old one then
        stays.
        """
        [old] = [place for place in self._places if place.name == name]
        try:
            await engine.start()
        except BaseException:
            await engine.close()
            raise
        self._places[self._places.index(old)] = _Place(name, engine)
        if old.running:
            old.idle.clear()
            await asyncio.wait([asyncio.ensure_future(old.idle.wait())], timeout=drain_s)
        await old.engine.close()

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(place.engine.close() for place in self._places))

    async def _answer(self, place: _Place, request: Completion) -> Events:
        place.running += 1
        try:
            async with aclosing(place.engine.complete(request)) as events:
                async for event in events:
                    yield event
        finally:
            place.running -= 1
            if not place.running:
                place.idle.set()

    def _choose(self, request: Completion, tried: list[_Place]) -> _Place:
        """A replica that has not been tried; one that is not ready where no other is."""
        rest = [place for place in self._places if place not in tried]
        if not rest:
            # Every place that was tried has a new engine by now.
            raise EngineUnavailable("all replicas are being started")
        places = [place for place in rest if place.engine.ready] or rest
        loads = [Load(place.name, place.running) for place in places]
        if self._routing == "prefix":
            return places[by_prefix(loads, prefix_key(request))]
        self._turn += 1
        return places[least_loaded(loads, turn=self._turn)]
