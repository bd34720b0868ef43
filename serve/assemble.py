"""From settings to the service behind the interface: engines, lines, names, keys."""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from configs.errors import UserError
from configs.secrets import read_key
from configs.serve_schema import HostedConfig, RouteConfig, TargetName, VllmConfig
from data.votes import VOTES_FILE
from serve.access.keys import KeyRing
from serve.admission import WaitingLine
from serve.backend import Backend
from serve.engine import Engine
from serve.engines.llamacpp import LlamaCppEngine
from serve.engines.num_threads import default_num_threads
from serve.engines.replica_choice import share_of_cards
from serve.engines.replicas import ReplicatedEngine
from serve.engines.upstream import UpstreamEngine
from serve.engines.vllm import VllmEngine
from serve.images.load import ImageLoader
from serve.metrics import Metrics
from serve.recordings import Recorder, remove_expired
from serve.routing import Route
from serve.service import ServedModel, Service
from serve.settings import ServedVariant, ServerSettings
from serve.workbench.folder import Workbench, has_workbench

logger = logging.getLogger(__name__)

RECORDINGS_FOLDER = "recordings"


def build_service(settings: ServerSettings) -> Service:
    """The service that `settings` describe; nothing is loaded yet.

    Raises `UserError` for files that are missing and for routes that lead to nothing.
    """
    return _Assembly(settings).build()


class _Assembly:
    """Builds each engine once, and only those that a route leads to."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._serve = settings.serve
        self._metrics = Metrics()
        self._lines: dict[Engine, WaitingLine] = {}
        # By name and by the file that it loads; the hosted one loads none.
        self._own: dict[tuple[str, Path | None], Engine] = {}
        # Replicas of this host: what they are part of, their names, and how each is built anew.
        self._renewals: list[tuple[ReplicatedEngine, str, Callable[[], Engine]]] = []

    def build(self) -> Service:
        serve = self._serve
        recorder = self._recorder()
        models = {
            name: self._model(name, config, variant, recorder)
            for name, (config, variant) in self._named_routes().items()
        }
        return Service(
            engines=[engine for engine in self._lines if not isinstance(engine, UpstreamEngine)],
            hosts=[engine for engine in self._lines if isinstance(engine, UpstreamEngine)],
            models=models,
            metrics=self._metrics,
            keys=KeyRing(serve.api_keys_path),
            images=ImageLoader(fetch_urls=serve.image_urls),
            recorder=recorder,
            workbench=self._workbench(),
            renew=self._renew if self._renewals else None,
            max_body_bytes=serve.max_body_mib * 2**20,
            keep_alive_s=serve.keep_alive_s,
        )

    def _named_routes(self) -> dict[str, tuple[RouteConfig, ServedVariant]]:
        """Each model name that clients may send, where it leads, and which variant is its own."""
        settings, first = self._settings, self._settings.variants[0]
        named = {variant.name: (RouteConfig(), variant) for variant in settings.variants}
        if settings.is_shared and settings.base_name is not None:
            named[settings.base_name] = (RouteConfig(to="base"), first)
        named |= {alias: (RouteConfig(), first) for alias in self._serve.aliases}
        own = {variant.name: variant for variant in settings.variants}
        routes = self._serve.routes.items()
        return named | {name: (config, own.get(name, first)) for name, config in routes}

    def _model(
        self, name: str, config: RouteConfig, variant: ServedVariant, recorder: Recorder | None
    ) -> ServedModel:
        serve = self._serve
        backends = {target: self._backend(target, variant) for target in config.targets}
        return ServedModel(
            name=name,
            to=config.to,
            route=Route(name, config, backends, recorder=recorder, metrics=self._metrics),
            description=variant.description if config.to == "variant" else None,
            source_model=self._settings.base_name if config.to == "variant" else None,
            aliases=tuple(self._serve.aliases) if name == self._settings.variants[0].name else (),
            price=serve.hosted.price if config.to == "hosted" and serve.hosted else None,
        )

    def _workbench(self) -> Workbench | None:
        """What the page at `/` works with."""
        if not has_workbench(self._serve):
            return None
        runs, folder = self._settings.runs, self._settings.folder
        return Workbench(
            runs_folder=runs[0].parent if runs else None,
            served=[run.name for run in runs],
            votes_file=None if folder is None else folder / VOTES_FILE.name,
        )

    def _recorder(self) -> Recorder | None:
        """What records shadowed requests; without a shadow, what former ones left still expires."""
        config, folder = self._serve.recordings, self._settings.folder
        has_shadow = any(route.shadow for route in self._serve.routes.values())
        if folder is None:
            if has_shadow:
                raise UserError(
                    "a route has a shadow, but there is nowhere to record it",
                    where="folder",
                    remedy="give the server's settings a `folder`",
                )
            return None
        recordings = folder / RECORDINGS_FOLDER
        if has_shadow:
            count_error = self._metrics.count_recording_error
            return Recorder(recordings, config, on_error=count_error)
        remove_expired(recordings, keep_days=config.keep_days)
        return None

    def _backend(self, target: TargetName, variant: ServedVariant) -> Backend:
        if target == "hosted":
            assert self._serve.hosted is not None, "the configuration asks for it"
            engine, name = self._hosted(self._serve.hosted), self._serve.hosted.model
            return self._behind_line(engine, name, label=f"hosted/{name}")
        engine = self._shared() if self._settings.is_shared else self._single(target, variant)
        name = self._base()[1] if target == "base" else variant.name
        return self._behind_line(engine, name, label=name)

    def _base(self) -> tuple[Path, str]:
        """The untuned base's file and name."""
        if self._settings.base is None or self._settings.base_name is None:
            raise UserError(
                "a route leads to the base, of which this run made no artefact",
                where="serve.routes",
                remedy="set evaluation.baseline to {kind: base} and merge again",
            )
        return self._settings.base, self._settings.base_name

    def _behind_line(self, engine: Engine, name: str, *, label: str) -> Backend:
        """All models of an engine wait in its one line."""
        if engine not in self._lines:
            self._lines[engine] = WaitingLine(
                num_slots=engine.capacity, max_waiting=self._serve.max_waiting
            )
        line = self._lines[engine]
        self._metrics.watch(label, running=lambda: line.running, waiting=lambda: line.waiting)
        return Backend(
            label=label, engine=engine, model_name=name, line=line, metrics=self._metrics
        )

    def _hosted(self, hosted: HostedConfig) -> Engine:
        own = (hosted.model, None)
        if own not in self._own:
            key = (
                read_key(hosted.api_key_env, where="serve.hosted.api_key_env")
                if hosted.api_key_env
                else None
            )
            self._own[own] = UpstreamEngine(
                base_url=hosted.base_url,
                model=hosted.model,
                api_key=key,
                max_requests=hosted.max_requests,
                context_length=hosted.context_length,
                silence_s=self._serve.silence_s,
            )
        return self._own[own]

    def _shared(self) -> Engine:
        """The one engine of several variants: their base, with all their adapters."""
        variants = self._settings.variants
        adapters = {one.name: one.adapter for one in variants if one.adapter is not None}
        return self._engine(*self._base(), adapters=adapters)

    def _single(self, target: TargetName, variant: ServedVariant) -> Engine:
        if target == "base":
            return self._engine(*self._base())
        assert variant.artefact is not None, "the settings ask for it"
        return self._engine(variant.artefact, variant.name)

    def _engine(
        self, file: Path, name: str, *, adapters: Mapping[str, Path] | None = None
    ) -> Engine:
        if (name, file) not in self._own:
            engine = self._build_replicas(file, name, adapters or {})
            self._metrics.watch_engine(name, ready=lambda: engine.ready)
            self._own[name, file] = engine
        return self._own[name, file]

    def _build_replicas(self, file: Path, name: str, adapters: Mapping[str, Path]) -> Engine:
        """The engine, or all of its replicas as one."""
        config = self._serve.replicas
        if not config.are_several:
            return self._build_engine(file, name, adapters)
        here = {
            f"{name}-{number}": self._build_engine(file, name, adapters, number=number)
            for number in range(config.count)
        }
        there = {host: self._build_host(host, name) for host in config.hosts}
        engine = ReplicatedEngine(
            here | there,
            routing=config.routing,
            on_retry=lambda: self._metrics.count_retry(name),
        )
        for number, replica in enumerate(here):
            build = partial(self._build_engine, file, name, adapters, number=number)
            self._renewals.append((engine, replica, build))
        return engine

    async def _renew(self) -> None:
        """Put a new engine into each replica's place, one after the other."""
        for engine, replica, build in self._renewals:
            await engine.replace(replica, build(), drain_s=self._serve.drain_s)
            logger.info("%s has been loaded anew", replica)

    def _build_host(self, base_url: str, name: str) -> Engine:
        config = self._serve.replicas
        where = "serve.replicas.api_key_env"
        return UpstreamEngine(
            base_url=base_url,
            model=name,
            api_key=read_key(config.api_key_env, where=where) if config.api_key_env else None,
            max_requests=config.max_requests,
            context_length=self._serve.context_length,
            silence_s=self._serve.silence_s,
        )

    def _build_engine(
        self, file: Path, name: str, adapters: Mapping[str, Path], *, number: int | None = None
    ) -> Engine:
        """number: which of several replicas it is."""
        serve, folder = self._serve, self._settings.folder
        told = name.replace("/", "-") + ("" if number is None else f"-{number}")
        log = None if folder is None else folder / f"engine-{told}.log"
        if isinstance(serve.engine, VllmConfig):
            return VllmEngine(
                file,
                model=name,
                config=serve.engine,
                context_length=serve.context_length,
                adapters=adapters,
                silence_s=serve.silence_s,
                log=log,
                cards=None if number is None else self._cards(serve.engine, number),
                on_end=lambda: self._metrics.count_restart(name),
            )
        return LlamaCppEngine(
            file,
            model=name,
            num_threads=max(
                1, (serve.num_threads or default_num_threads()) // max(1, serve.replicas.count)
            ),
            context_length=serve.context_length,
            num_slots=serve.num_slots,
            mmproj=self._settings.mmproj,
            adapters=adapters,
            silence_s=serve.silence_s,
            log=log,
            on_end=lambda: self._metrics.count_restart(name),
        )

    @staticmethod
    def _cards(config: VllmConfig, number: int) -> str:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        cards = share_of_cards(number, cards_each=config.tensor_parallel, visible=visible)
        if len(cards.split(",")) < config.tensor_parallel or not cards:
            raise UserError(
                f"replica {number + 1} has no {config.tensor_parallel} cards left",
                where="serve.replicas.count",
                remedy="ask for fewer replicas, or let CUDA_VISIBLE_DEVICES show more cards",
            )
        return cards
