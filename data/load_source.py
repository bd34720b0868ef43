"""Choose the source module that the configuration names."""

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
