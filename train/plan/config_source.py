"""Where a model's config.json comes from: as near as possible, and never its weights."""

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import UserError
from configs.schema import FolderModel, HubModel, ModelConfig, PackageModel
from data.cache import cache_folder
from train.plan.architecture import Architecture, read_architecture

# Seconds to wait for the hub's answer.
HUB_PATIENCE = 5


class Found(NamedTuple):
    """A model's architecture, and in words where it was read."""

    architecture: Architecture
    told: str


def find_architecture(model: ModelConfig) -> Found:
    """The architecture of a run's model.

    From its folder; for the models of the ready-made configurations from a copy of their
    config.json that comes with Tunery; else from the hub's local cache, or one download of that
    file alone. Errors: `UserError` where there is none, and for kinds of model that the planner
    does not know.
    """
    source = model.source
    if isinstance(source, FolderModel):
        return _read(source.path / "config.json")
    if isinstance(source, PackageModel):
        return _of_package(source)
    return _of_hub(source)


def _of_package(source: PackageModel) -> Found:
    stem = Path(source.file).stem
    converted = cache_folder() / "models" / f"{stem}-{source.file_sha256[:16]}" / "config.json"
    if converted.is_file():
        return _read(converted)
    shipped = _shipped(stem.partition(".")[0])
    if shipped is None:
        raise UserError(
            "the model's architecture is not known before it has been fetched",
            where="model.source",
            remedy="run `tunery prepare` with this configuration first",
        )
    return shipped


def _of_hub(source: HubModel) -> Found:
    shipped = _shipped(source.id.replace("/", "--"))
    if shipped is not None:
        return shipped
    # It takes longer to load than all the rest of a plan, which most often does without it.
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # noqa: PLC0415

    try:
        cached = try_to_load_from_cache(source.id, "config.json", revision=source.revision)
        if isinstance(cached, str):
            return _read(Path(cached))
        file = hf_hub_download(
            source.id, "config.json", revision=source.revision, etag_timeout=HUB_PATIENCE
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot fetch the config.json of {source.id}: {_first_line(error)}",
            where="model.source",
            remedy="check the id, revision and network; for a gated model set HF_TOKEN; or give a "
            "local copy as `kind: folder`",
        ) from error
    return _read(Path(file))


def _shipped(name: str) -> Found | None:
    file = files("train.plan") / "architectures" / f"{name}.json"
    return _read(file, told="a copy that comes with Tunery") if file.is_file() else None


def _read(file: Path | Traversable, *, told: str | None = None) -> Found:
    return Found(read_architecture(read_json(file), where=str(file)), told or str(file))


def read_json(file: Path | Traversable) -> dict[str, Any]:
    """The object in a JSON file; a `UserError` where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        told = "it holds no object"
    except (OSError, ValueError) as error:
        told = _first_line(error)
    raise UserError(
        f"cannot read the model's configuration: {told}",
        where=str(file),
        remedy="give a folder in the hub's layout, with its config.json",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
