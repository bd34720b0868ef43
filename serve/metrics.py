"""What the server measures, under vLLM's names: dashboards and alerts made for vLLM fit.

Names, labels and buckets are those of its `vllm/v1/metrics/loggers.py`; what only its scheduler
knows (the KV cache, preemptions, prefill by itself) is left out rather than guessed.
What vLLM has no word for begins with `tunery:`.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from serve.engine import (
    ChoiceEnd,
    EngineUnavailable,
    Events,
    RequestRefused,
    Usage,
)
from serve.metric_buckets import FIRST_TOKEN_S, INTER_TOKEN_S, REQUEST_S, TOKENS

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

ENGINE = "0"
"""vLLM tells data-parallel replicas apart by it; here a model has one engine."""

MODEL_LABELS = ("model_name", "engine")

FINISHED_REASONS = {"stop": "stop", "length": "length", "tool_calls": "stop"}
"""vLLM's word for each of ours: a call of tools ends by a stop token like any other answer."""


class _ModelMetrics:
    """The series of one model, looked up once: a lookup by labels costs more than a count."""

    def __init__(self, metrics: "Metrics", model: str) -> None:
        self.first_token_s = metrics.first_token_s.labels(model, ENGINE)
        self.inter_token_s = metrics.inter_token_s.labels(model, ENGINE)
        self.e2e_s = metrics.e2e_s.labels(model, ENGINE)
        self.prompt_tokens = metrics.prompt_tokens.labels(model, ENGINE)
        self.generation_tokens = metrics.generation_tokens.labels(model, ENGINE)
        self.request_prompt_tokens = metrics.request_prompt_tokens.labels(model, ENGINE)
        self.request_generation_tokens = metrics.request_generation_tokens.labels(model, ENGINE)
        self.finished = {
            reason: metrics.request_success.labels(model, ENGINE, reason)
            for reason in ("stop", "length", "abort", "error", "content_filter")
        }


class Metrics:
    """All series of one server, in a registry of its own.

    Model names and labels must come from the configuration, never from a client: each makes series
    that stay.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: dict[str, _ModelMetrics] = {}
        self._build_gauges()
        self._build_histograms()
        self._build_counters()
        self._build_own()

    def _build_gauges(self) -> None:
        self._running = self._gauge("vllm:num_requests_running", "Requests being answered.")
        self._waiting = self._gauge("vllm:num_requests_waiting", "Requests waiting for a slot.")

    def _build_histograms(self) -> None:
        self.first_token_s = self._histogram(
            "vllm:time_to_first_token_seconds",
            "Time to first token, in line included.",
            FIRST_TOKEN_S,
        )
        self.inter_token_s = self._histogram(
            "vllm:inter_token_latency_seconds",
            "Time between two pieces of the same answer; a piece is a token where the engine "
            "streams token by token.",
            INTER_TOKEN_S,
        )
        self.e2e_s = self._histogram(
            "vllm:e2e_request_latency_seconds", "Duration of finished requests.", REQUEST_S
        )
        self.queue_s = self._histogram(
            "vllm:request_queue_time_seconds",
            "Time in line of requests that got a slot.",
            REQUEST_S,
        )
        self.request_prompt_tokens = self._histogram(
            "vllm:request_prompt_tokens", "Prompt tokens of finished requests.", TOKENS
        )
        self.request_generation_tokens = self._histogram(
            "vllm:request_generation_tokens",
            "Tokens of finished requests, all choices together.",
            TOKENS,
        )

    def _build_counters(self) -> None:
        self.prompt_tokens = self._counter(
            "vllm:prompt_tokens", "Prompt tokens of finished requests.", *MODEL_LABELS
        )
        self.generation_tokens = self._counter(
            "vllm:generation_tokens",
            "Generated tokens; of requests that did not finish, the pieces seen.",
            *MODEL_LABELS,
        )
        self.request_success = self._counter(
            "vllm:request_success",
            "Requests that were let in, by how they ended; abort: the client went away.",
            *MODEL_LABELS,
            "finished_reason",
        )

    def _build_own(self) -> None:
        self._refusals = self._counter(
            "tunery:refusals", "Requests answered by an error.", "model_name", "status"
        )
        self._engine_ready = Gauge(
            "tunery:engine_ready",
            "Whether the engine would answer now.",
            ["engine_name"],
            registry=self._registry,
        )
        self._restarts = self._counter(
            "tunery:engine_restarts", "Engines started again after they ended.", "engine_name"
        )
        self._retries = self._counter(
            "tunery:engine_retries",
            "Requests that one replica could not take and another was asked for.",
            "engine_name",
        )
        self._fallbacks = self._counter(
            "tunery:fallbacks", "Requests passed on to the fallback.", "route", "chosen", "fallback"
        )
        self._shadows = self._counter(
            "tunery:shadows", "Shadows by how they ended, or why not asked.", "route", "outcome"
        )
        self._recording_errors = self._counter(
            "tunery:recording_errors", "Pairs of answers that could not be recorded."
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, MODEL_LABELS, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, MODEL_LABELS, buckets=buckets, registry=self._registry)

    def watch(self, model: str, *, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Read these at each scrape; all series of the model are there from now on."""
        self._running.labels(model, ENGINE).set_function(running)
        self._waiting.labels(model, ENGINE).set_function(waiting)
        self._of(model)

    def watch_engine(self, name: str, *, ready: Callable[[], bool]) -> None:
        """Read at each scrape whether the engine is ready; its restarts are 0 until counted."""
        self._engine_ready.labels(name).set_function(ready)
        self._restarts.labels(name)

    def _of(self, model: str) -> _ModelMetrics:
        if model not in self._models:
            self._models[model] = _ModelMetrics(self, model)
        return self._models[model]

    def measure(self, model: str, events: Events) -> Events:
        """The same events, measured from this call on; closing them closes `events`.

        A request counts once, however many choices it has: the first token is that of whichever
        comes first, times between tokens are taken within each choice, and a request of which any
        choice was cut off counts as `length`. What is refused before its first event is not
        counted here (see `count_refusal`). A request whose reader goes away, in line or midway,
        is an `abort`; latencies and lengths are of requests that finished. A reader that takes
        its time lengthens the times between tokens.
        """
        return self._measured(self._of(model), events, time.perf_counter())

    async def _measured(self, of: _ModelMetrics, events: Events, started: float) -> Events:
        now = time.perf_counter
        latest: dict[int, float] = {}
        num_pieces = 0
        reason, usage = "", None
        ended = "abort"
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Usage):
                        usage = event
                    elif isinstance(event, ChoiceEnd):
                        if reason != "length":
                            reason = FINISHED_REASONS.get(event.reason, event.reason)
                    else:
                        at = now()
                        if event.choice in latest:
                            of.inter_token_s.observe(at - latest[event.choice])
                        elif not latest:
                            of.first_token_s.observe(at - started)
                        latest[event.choice] = at
                        num_pieces += 1
                    yield event
            ended = reason or "error"
        except (EngineUnavailable, RequestRefused):
            # Before the first event it was never let in: that is a refusal.
            ended = "error" if num_pieces or reason else ""
            raise
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException:
            ended = "error"
            raise
        finally:
            # A reader may stop at the counts: they are the last event.
            if usage is not None and ended == "abort":
                ended = reason or "error"
            _count_end(of, ended, usage, seconds=now() - started, num_pieces=num_pieces)

    def observe_wait(self, model: str, *, seconds: float) -> None:
        """A request got its slot after this time in line."""
        self.queue_s.labels(model, ENGINE).observe(seconds)

    def count_refusal(self, model: str, status: int) -> None:
        """A request was answered by an error; model: empty where it named none that there is."""
        self._refusals.labels(model, str(status)).inc()

    def count_restart(self, engine: str) -> None:
        """An engine had ended, and is started again."""
        self._restarts.labels(engine).inc()

    def count_retry(self, engine: str) -> None:
        """A replica could not take a request, so another one is asked."""
        self._retries.labels(engine).inc()

    def count_fallback(self, route: str, *, chosen: str, fallback: str) -> None:
        """The chosen target could not answer, so the fallback is asked."""
        self._fallbacks.labels(route, chosen, fallback).inc()

    def count_shadow(self, route: str, outcome: str) -> None:
        """A shadow ended, or was not asked; see `serve.shadow`."""
        self._shadows.labels(route, outcome).inc()

    def count_recording_error(self) -> None:
        """A pair was lost; may be called from any thread."""
        self._recording_errors.inc()

    def render(self) -> bytes:
        """All series in Prometheus's text format, which `CONTENT_TYPE` names."""
        return generate_latest(self._registry)


def _count_end(
    of: _ModelMetrics, ended: str, usage: Usage | None, *, seconds: float, num_pieces: int
) -> None:
    if not ended:
        return
    of.finished[ended].inc()
    if usage is None or ended == "error":
        of.generation_tokens.inc(num_pieces)
        return
    of.prompt_tokens.inc(usage.prompt_tokens)
    of.generation_tokens.inc(usage.completion_tokens)
    of.e2e_s.observe(seconds)
    of.request_prompt_tokens.observe(usage.prompt_tokens)
    of.request_generation_tokens.observe(usage.completion_tokens)
