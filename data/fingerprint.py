"""Tells whether local rows or weights may have changed, with nothing heavy to load for it."""

import hashlib
from pathlib import Path

from configs.errors import UserError
from configs.schema import DataSource, FolderModel, HubDataSource, JsonlSource, ModelConfig


def source_fingerprint(source: DataSource) -> str:
    """What changes when a source's rows may have changed, beside its configuration.

    A local file's SHA-256, a local folder's over all its files; pinned packages and hub revisions
    are told by the configuration.
    """
    if isinstance(source, JsonlSource):
        try:
            return _file_sha256(source.path)
        except OSError as error:
            raise unreadable(source, error) from error
    if isinstance(source, HubDataSource) and (folder := Path(source.id)).is_dir():
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        told = [f"{file.relative_to(folder)}\0{_file_sha256(file)}\n" for file in files]
        return hashlib.sha256("".join(told).encode("utf-8", "surrogateescape")).hexdigest()
    return ""


def model_fingerprint(model: ModelConfig) -> str:
    """What changes when a local checkpoint's files may have changed: names, sizes, times.

    Pinned packages and hub revisions are told by the configuration; weights are too large to hash
    at every start.
    """
    if not isinstance(model.source, FolderModel):
        return ""
    stats = [(file.name, file.stat()) for file in sorted(model.source.path.glob("*"))]
    told = [f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n" for name, stat in stats]
    return hashlib.sha256("".join(told).encode("utf-8", "surrogateescape")).hexdigest()


def unreadable(source: JsonlSource, error: OSError) -> UserError:
    """What to tell the user when the file cannot be opened."""
    return UserError(
        f"cannot read the data file: {error.strerror}",
        where=source.path,
        remedy="set data.source.path to a JSON Lines file",
    )


def _file_sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
