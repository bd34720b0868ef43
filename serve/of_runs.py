"""What of a run is served: its artefacts as the settings of a server."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from configs.artefact_paths import (
    adapter_export,
    artefact_path,
    base_gguf,
    mmproj_gguf,
    variant_gguf,
)
from configs.errors import UserError
from configs.run_directory import RunDirectory
from configs.schema import RunConfig
from configs.serve_schema import ServeConfig, VllmConfig
from serve.settings import ServedVariant, ServerSettings

CHILD_DRAIN_S = 5.0

Run = tuple[RunDirectory, RunConfig]


def settings_of_run(
    run: Run, *, base: bool = False, checkpoint: Path | None = None
) -> ServerSettings:
    """The merged variant of a run, and its base where a route leads there.

    base: the untuned base instead, under its own name and without routes; checkpoint: the base's
    folder, which vLLM loads. Raises `UserError` where the run has not been merged, or lacks what
    its configuration serves.
    """
    directory, config = run
    directory.finished("merge")
    is_vllm = isinstance(config.serve.engine, VllmConfig)
    base_file = checkpoint if is_vllm else base_gguf(directory.path, config)
    has_base = base_file is not None and base_file.exists()
    serve = config.serve
    variant = ServedVariant(
        name=config.name,
        description=config.description,
        artefact=_merged(directory.path, config),
    )
    if base:
        if not has_base:
            raise UserError(
                "this run made no artefact of the base, because its evaluation does not ask it",
                where=directory.path,
                remedy="serve the variant, or set evaluation.baseline to {kind: base} and merge "
                "again",
            )
        variant = ServedVariant(name=config.model.name, artefact=base_file)
        serve = serve.model_copy(update={"routes": {}, "aliases": []})
    is_beside = has_base and config.model.name != variant.name
    return _checked(
        directory,
        ServerSettings.model_construct(
            variants=[variant],
            base_name=config.model.name if is_beside else None,
            base=base_file if is_beside else None,
            mmproj=_mmproj(directory.path, config),
            serve=serve,
            runs=[directory.path],
            folder=directory.path / "serve",
        ),
    )


def _checked(directory: RunDirectory, settings: ServerSettings) -> ServerSettings:
    """The same, where its names and files go together; what does not is told as a `UserError`."""
    try:
        return ServerSettings.model_validate(dict(settings))
    except ValidationError as error:
        faults = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        raise UserError(
            faults, where=directory.config_file, remedy="change the `serve` section there"
        ) from error


def settings_of_runs(runs: Sequence[Run], *, checkpoint: Path | None = None) -> ServerSettings:
    """Several runs of one base: it is loaded once, with the adapter of each; the first run's
    configuration says how. checkpoint: see `settings_of_run`. Raises `UserError` where they do not
    share a base, or lack an adapter.
    """
    first, first_config = runs[0]
    names = [config.name for _, config in runs]
    if len(set(names)) < len(names):
        raise UserError(
            "two of the runs have the same name, by which requests tell them apart",
            where=first.path,
            remedy="name each run once",
        )
    for directory, config in runs:
        directory.finished("merge")
        if config.model.source != first_config.model.source:
            raise UserError(
                f"{config.name} and {first_config.name} have different bases",
                where=directory.config_file,
                remedy="serve them from a server each",
            )
    single = settings_of_run(runs[0], checkpoint=checkpoint)
    if single.base is None:
        raise UserError(
            "several variants share their base, of which this run made no artefact",
            where=first.path,
            remedy="set evaluation.baseline to {kind: base} and merge again",
        )
    variants = [
        ServedVariant(
            name=config.name,
            description=config.description,
            adapter=_adapter(directory.path, config, first_config),
        )
        for directory, config in runs
    ]
    paths = [directory.path for directory, _ in runs]
    return _checked(first, single.model_copy(update={"variants": variants, "runs": paths}))


def as_measured(settings: ServerSettings) -> ServerSettings:
    """The same engine on this machine's own address, without what only concerns clients."""
    serve = settings.serve
    plain = ServeConfig(
        port=0,
        engine=serve.engine,
        num_threads=serve.num_threads,
        context_length=serve.context_length,
        num_slots=serve.num_slots,
        silence_s=serve.silence_s,
        drain_s=CHILD_DRAIN_S,
        workbench=False,
    )
    return settings.model_copy(update={"serve": plain})


def _merged(run: Path, config: RunConfig) -> Path:
    engine = config.serve.engine
    if not isinstance(engine, VllmConfig):
        return variant_gguf(run, config)
    if engine.artefact not in config.merge.artefacts:
        raise UserError(
            f"vLLM is to serve {engine.artefact}, which this run has not made",
            where="serve.engine.artefact",
            remedy=f"add {engine.artefact} to merge.artefacts and merge again",
        )
    return run / artefact_path(config, engine.artefact)


def _adapter(run: Path, config: RunConfig, serving: RunConfig) -> Path:
    form = "vllm" if isinstance(serving.serve.engine, VllmConfig) else "llamacpp"
    if form not in config.merge.adapter_exports:
        raise UserError(
            f"{config.name} has no adapter that {form} loads beside the base",
            where=run / "config.yaml",
            remedy=f"add {form} to merge.adapter_exports and merge again",
        )
    return run / adapter_export(config, form)


def _mmproj(run: Path, config: RunConfig) -> Path | None:
    file = mmproj_gguf(run, config)
    return file if file.exists() else None
