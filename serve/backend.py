"""A model of an engine as routes reach it: behind its line, and measured."""

from contextlib import aclosing
from dataclasses import dataclass, replace

from serve.admission import WaitingLine
from serve.engine import Completion, Engine, EngineModel, Events
from serve.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Who answers a request. label: the name in logs, metrics and records; line: the engine's."""

    label: str
    engine: Engine
    model_name: str
    line: WaitingLine
    metrics: Metrics

    @property
    def model(self) -> EngineModel:
        """What the engine says of the model just now."""
        return next(model for model in self.engine.models if model.name == self.model_name)

    def complete(self, request: Completion) -> Events:
        """As `Engine.complete`; the time in line counts. Raises `Overloaded` where it is full."""
        return self.metrics.measure(self.label, self._in_line(request))

    async def _in_line(self, request: Completion) -> Events:
        async with self.line.place() as waited_s:
            self.metrics.observe_wait(self.label, seconds=waited_s)
            events = self.engine.complete(replace(request, model=self.model_name))
            async with aclosing(events):
                async for event in events:
                    yield event
