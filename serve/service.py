"""All that stands behind the interface: engines, the names that lead to them, and their life."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request

from configs.evaluation_schema import Price
from configs.serve_schema import TargetName
from serve.access.keys import ANONYMOUS, KeyRing
from serve.engine import Engine, EngineModel
from serve.errors import model_not_found
from serve.images.load import ImageLoader
from serve.metrics import Metrics
from serve.models_list import model_object
from serve.recordings import Recorder
from serve.request_log import note
from serve.routing import Route
from serve.workbench.folder import Workbench


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model name that clients may send. to: who answers where nothing else is said.

    source_model: what a variant was tuned from; aliases: further names of the same model;
    price: what it costs, where somebody asks for money.
    """

    name: str
    to: TargetName
    route: Route
    description: str | None = None
    source_model: str | None = None
    aliases: tuple[str, ...] = ()
    price: Price | None = None

    @property
    def engine_model(self) -> EngineModel:
        """Who answers most clients, as its engine says just now."""
        return self.route.backends[self.to].model

    def model_for(self, client: str) -> EngineModel:
        """Who answers this client, as its engine says just now."""
        return self.route.backends[self.route.choose(client)].model

    def to_json(self, *, created: int) -> dict[str, Any]:
        """The object that the models list has; created: Unix time."""
        return model_object(
            self.engine_model,
            name=self.name,
            kind=self.to,
            created=created,
            description=self.description,
            source_model=self.source_model,
            aliases=self.aliases,
            price=self.price,
        )


@dataclass(kw_only=True)
class Service:
    """What `build_app` answers with. engines: those of this machine, which must be ready for the
    server to be; hosts: those elsewhere; models: by the name that clients send; workbench: what the
    page at `/` works with, None where there is none.

    renew: loads what the engines answer with anew, replica by replica, None where there are no
    replicas; keep_alive_s: see `ServeConfig`; draining: no new requests are let in, the running
    ones go on.
    """

    engines: Sequence[Engine]
    hosts: Sequence[Engine]
    models: Mapping[str, ServedModel]
    metrics: Metrics
    keys: KeyRing
    images: ImageLoader
    recorder: Recorder | None
    workbench: Workbench | None
    renew: Callable[[], Awaitable[None]] | None
    max_body_bytes: int
    keep_alive_s: float
    draining: bool = False
    _num_running: int = field(default=0, init=False)
    _idle: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def state(self) -> Literal["ok", "loading", "stopping"]:
        """Whether a request for any of the models would be answered now."""
        if self.draining:
            return "stopping"
        return "ok" if all(engine.ready for engine in self.engines) else "loading"

    def identify(self, request: Request, *, counted: bool = False) -> str:
        """The name of who asks, or its address where no keys are asked for.

        counted: the request counts against its rate. Raises `ApiError` (401, 429) where it may not.
        """
        client = self.keys.check(request.headers.get("authorization"), counted=counted)
        if client is ANONYMOUS:
            return request.client.host if request.client else client.name
        note(client=client.name)
        return client.name

    def model(self, name: str) -> ServedModel:
        """Who answers under a name; raises `ApiError` (404) for an unknown one."""
        if name not in self.models:
            raise model_not_found(name)
        return self.models[name]

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request that has been let in, for as long as the block runs."""
        self._num_running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_running -= 1
            if not self._num_running:
                self._idle.set()

    async def start(self) -> None:
        """Load all engines side by side; raises the first one's `UserError`."""
        await asyncio.gather(*(engine.start() for engine in (*self.engines, *self.hosts)))

    async def drain(self, seconds: float) -> None:
        """Let no one in any more, and return once all are answered, or after that time."""
        self.draining = True
        if self._num_running:
            await asyncio.wait([asyncio.ensure_future(self._idle.wait())], timeout=seconds)

    async def close(self) -> None:
        """End all engines; what still runs ends with an error that says so."""
        self.draining = True
        routes = [model.route for model in self.models.values()]
        for part in (*routes, *self.engines, *self.hosts, self.images, self.recorder):
            if part is not None:
                await part.close()
