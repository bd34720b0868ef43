"""Choose the source module that the configuration names."""

import hashlib
from pathlib import Path

from configs.schema import (
    AwsCliSource,
    DataSource,
    HubDataSource,
    Icd10Source,
    JsonlSource,
    LicenceNoticesSource,
)
from data.conversation import SourceRows
from data.sources import aws_cli, hub, icd10, jsonl, licence_notices


def load_source(source: DataSource) -> SourceRows:
    """Read all rows of a configured source."""
    match source:
        case LicenceNoticesSource():
            return licence_notices.load()
        case Icd10Source():
            return icd10.load()
        case AwsCliSource():
            return aws_cli.load()
        case JsonlSource():
            return jsonl.load(source)
        case HubDataSource():
            return hub.load(source)


def source_fingerprint(source: DataSource) -> str:
    """What changes when a source's rows may have changed, beside its configuration.

    A local file's SHA-256, a local folder's over all its files; pinned packages and hub revisions
    are told by the configuration.
    """
    if isinstance(source, JsonlSource):
        try:
            return _file_sha256(source.path)
        except OSError as error:
            raise jsonl.unreadable(source, error) from error
    if isinstance(source, HubDataSource) and (folder := Path(source.id)).is_dir():
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        told = [f"{file.relative_to(folder)}\0{_file_sha256(file)}\n" for file in files]
        return hashlib.sha256("".join(told).encode("utf-8", "surrogateescape")).hexdigest()
    return ""


def _file_sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
