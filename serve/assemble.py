"""From settings to the service behind the interface: engines, lines, names, keys."""

from collections.abc import Mapping
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
from serve.engines.upstream import UpstreamEngine
from serve.engines.vllm import VllmEngine
from serve.images.load import ImageLoader
from serve.metrics import Metrics
from serve.recordings import Recorder, remove_expired
from serve.routing import Route
from serve.service import ServedModel, Service
from serve.settings import ServedVariant, ServerSettings
from serve.workbench.folder import Workbench, has_workbench

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
            engine = self._build_engine(file, name, adapters or {})
            self._metrics.watch_engine(name, ready=lambda: engine.ready)
            self._own[name, file] = engine
        return self._own[name, file]

    def _build_engine(self, file: Path, name: str, adapters: Mapping[str, Path]) -> Engine:
        serve, folder = self._serve, self._settings.folder
        log = None if folder is None else folder / f"engine-{name.replace('/', '-')}.log"
        if isinstance(serve.engine, VllmConfig):
            return VllmEngine(
                file,
                model=name,
                config=serve.engine,
                context_length=serve.context_length,
                adapters=adapters,
                silence_s=serve.silence_s,
                log=log,
                on_end=lambda: self._metrics.count_restart(name),
            )
        return LlamaCppEngine(
            file,
            model=name,
            num_threads=serve.num_threads or default_num_threads(),
            context_length=serve.context_length,
            num_slots=serve.num_slots,
            mmproj=self._settings.mmproj,
            adapters=adapters,
            silence_s=serve.silence_s,
            log=log,
            on_end=lambda: self._metrics.count_restart(name),
        )
