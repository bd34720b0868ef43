"""Tells whether local rows or weights may have changed, with nothing heavy to load for it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from configs.data_schema import (
    DataSource,
    FilesSource,
    HubDataSource,
    MixtureSource,
    ParallelLinesSource,
    TableSource,
    VotesSource,
)
from configs.schema import FolderModel, ModelConfig, RunConfig
from data.sources.paths import expand_paths, is_local_folder, local_folder, unreadable


def data_fingerprint(config: RunConfig) -> str:
    """What changes when the rows of the source or of an evaluation set may have changed."""
    return _combined(
        [source_fingerprint(source) for source in (config.data.source, *config.evaluation_sources)]
    )


def source_fingerprint(source: DataSource) -> str:
    """What changes when a source's rows may have changed, beside its configuration.

    The SHA-256 of all its local files, those of a local folder with their names; empty where there
    are none: pinned packages and hub revisions are told by the configuration. Errors: `UserError`
    for a file that cannot be read.
    """
    if isinstance(source, MixtureSource):
        return _combined([source_fingerprint(part.source) for part in source.parts])
    return _combined([f"{name}\0{file_sha256(file)}" for name, file in _files(source)])


def model_fingerprint(model: ModelConfig) -> str:
    """What changes when a local checkpoint's files may have changed: names, sizes, times.

    Pinned packages and hub revisions are told by the configuration; weights are too large to hash
    at every start.
    """
    if not isinstance(model.source, FolderModel):
        return ""
    return folder_fingerprint(model.source.path)


def folder_fingerprint(folder: Path) -> str:
    """What changes when a folder of weights may have changed: names, sizes and times."""
    stats = [(file.name, file.stat()) for file in sorted(folder.glob("*"))]
    return _combined([f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}" for name, stat in stats])


def _files(source: DataSource) -> Iterator[tuple[str, Path]]:
    """Each local file under a name that says what it is for."""
    if isinstance(source, FilesSource):
        for key in ("path", "validation_path", "test_path"):
            for file in expand_paths(getattr(source, key), key=key):
                yield f"{key}\0{file.name}", file
    if isinstance(source, ParallelLinesSource):
        for key in ("questions_path", "answers_path"):
            for file in expand_paths(getattr(source, key), key=key):
                yield key, file
    if isinstance(source, VotesSource):
        for file in expand_paths(source.path, key="path"):
            yield f"path\0{file.name}", file
    if isinstance(source, HubDataSource) and is_local_folder(source.id):
        folder = local_folder(source.id)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                yield str(file.relative_to(folder)), file
    if isinstance(source, TableSource):
        for file in expand_paths(source.test_ids_path, key="test_ids_path"):
            yield "test_ids_path", file


def _combined(parts: list[str]) -> str:
    """One SHA-256 over all parts in their order; empty where all of them are."""
    if not any(parts):
        return ""
    told = "".join(f"{part}\n" for part in parts)
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, lower-case hex. Errors: `UserError` where it is unreadable."""
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(error, where=file) from error
