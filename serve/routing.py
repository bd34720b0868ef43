"""Who answers under a model name: split between targets, with a fallback and a shadow.

A client's answer comes from one model from its first event to its last; what goes wrong after the
first event is an error, never the cause of another model's going on.
"""

from collections.abc import Mapping
from contextlib import aclosing

from configs.serve_schema import RouteConfig, TargetName
from serve.engine import Completion, EngineError, EngineUnavailable, Events, RequestRefused
from serve.metrics import Metrics
from serve.recordings import Recorder
from serve.request_log import note
from serve.shadow import Backend, Shadow
from serve.split import choose_target
from serve.transcript import Transcript


class Answering:
    """An answer on its way. events: read them once, and close them.

    target: the label of who answers; empty until the first event, right from then on.
    """

    def __init__(
        self, route: "Route", request: Completion, *, client: str, request_id: str
    ) -> None:
        self.target = ""
        self._route = route
        self._request = request
        self._client = client
        self._request_id = request_id
        chosen = route.choose(client)
        self._chosen = route.backends[chosen]
        self._fallback = route.fallback_of(chosen)
        self.events = self._answer() if route.shadow is None else self._answer_in_two_places()

    async def _answer(self) -> Events:
        started = False
        try:
            async with aclosing(self._chosen.complete(self._request)) as events:
                async for event in events:
                    if not started:
                        started = True
                        self.target = self._chosen.label
                    yield event
            return
        except EngineUnavailable as error:
            if started or self._fallback is None:
                raise
            unavailable = error
        async with aclosing(self._fall_back(self._fallback, unavailable)) as events:
            async for event in events:
                yield event

    async def _fall_back(self, fallback: Backend, unavailable: EngineUnavailable) -> Events:
        """Where the fallback cannot answer either, what the chosen one said stands: a client that
        waits as it was told gets the answer that it would have got."""
        self._route.count_fallback(self._chosen, fallback)
        started = False
        try:
            async with aclosing(fallback.complete(self._request)) as events:
                async for event in events:
                    if not started:
                        started = True
                        self.target = fallback.label
                        note(fallback_from=self._chosen.label)
                    yield event
        except (EngineError, RequestRefused) as error:
            if started:
                raise
            raise unavailable from error

    async def _answer_in_two_places(self) -> Events:
        """The shadow is asked once the client's answer has ended, so that it takes nothing from it.

        It is not asked where the client went away or the answer broke off: there is nothing to
        compare with, and nobody paid for the half that is missing.
        """
        transcript = Transcript()
        try:
            async with aclosing(self._answer()) as events:
                async for event in events:
                    transcript.add(event)
                    yield event
        finally:
            shadow = self._route.shadow
            if shadow is not None and shadow.label != self.target:
                shadow.ask(
                    self._request,
                    client=self._client,
                    request_id=self._request_id,
                    answered_by=self.target,
                    answered=transcript,
                )


class Route:
    """Answers the requests under one model name.

    backends: one for each of `config.targets`; recorder: where pairs of a shadow go; without one
    the shadow is not asked. A client whom the split gives to the fallback or to the shadow itself
    has no fallback, or no shadow. Close it before its backends.
    """

    def __init__(
        self,
        name: str,
        config: RouteConfig,
        backends: Mapping[TargetName, Backend],
        *,
        recorder: Recorder | None,
        metrics: Metrics | None = None,
    ) -> None:
        assert config.targets <= backends.keys(), f"{name} leads to {config.targets}"
        self.name = name
        self.backends = backends
        self._config = config
        self._metrics = metrics
        self.shadow: Shadow | None = None
        if config.shadow is not None and recorder is not None:
            self.shadow = Shadow(name, backends[config.shadow], recorder, metrics=metrics)

    def answer(self, request: Completion, *, client: str, request_id: str) -> Answering:
        """Answer for a client, of whom `client` is all that the split goes by."""
        return Answering(self, request, client=client, request_id=request_id)

    def choose(self, client: str) -> TargetName:
        """Who answers this client, today and tomorrow."""
        config = self._config
        return choose_target(client, route=self.name, to=config.to, split=config.split)

    def fallback_of(self, chosen: TargetName) -> Backend | None:
        """Who answers where the chosen one cannot."""
        fallback = self._config.fallback
        return None if fallback in (None, chosen) else self.backends[fallback]

    def count_fallback(self, chosen: Backend, fallback: Backend) -> None:
        """Told before the fallback is asked."""
        if self._metrics is not None:
            self._metrics.count_fallback(self.name, chosen=chosen.label, fallback=fallback.label)

    async def close(self) -> None:
        """End the shadows that still run; each is recorded as ended. May be called twice."""
        if self.shadow is not None:
            await self.shadow.close()
