"""From a configured source to one whose rows can be read, chunk by chunk."""

from collections.abc import Collection

from configs.data_schema import (
    AwsCliSource,
    FilesSource,
    HubDataSource,
    Icd10Source,
    LicenceNoticesSource,
    ParallelLinesSource,
    PresetSource,
    SingleSource,
    VotesSource,
)
from configs.errors import UserError
from data.conversation import Source
from data.presets import find_preset
from data.sources import aws_cli, icd10, licence_notices
from data.sources.files import open_files
from data.sources.hub import open_hub
from data.sources.parallel_lines import open_parallel_lines
from data.sources.votes import open_votes
from data.sources.whole import WholeSource


def open_source(config: SingleSource) -> Source:
    """Find a source's files or splits and settle how its rows are understood.

    Errors: `UserError` for what cannot be read, and for rows whose shape is not clear.
    """
    match config:
        case LicenceNoticesSource():
            return WholeSource(
                load=licence_notices.load,
                licence=licence_notices.LICENCE,
                attribution=licence_notices.ATTRIBUTION,
            )
        case Icd10Source():
            return WholeSource(
                load=icd10.load, licence=icd10.LICENCE, attribution=icd10.ATTRIBUTION
            )
        case AwsCliSource():
            return WholeSource(
                load=aws_cli.load, licence=aws_cli.LICENCE, attribution=aws_cli.ATTRIBUTION
            )
        case FilesSource():
            return open_files(config)
        case ParallelLinesSource():
            return open_parallel_lines(config)
        case HubDataSource():
            return open_hub(config)
        case PresetSource():
            preset = find_preset(config)
            return open_hub(preset.source, files=preset.files)
        case VotesSource():
            return open_votes(config)


def listed_test_ids(source: Source) -> frozenset[str]:
    """The ids of a source's official test split; none where it has no list of them."""
    ids: frozenset[str] = getattr(source, "test_ids", frozenset())
    return ids


def check_test_ids(source: Source, found: Collection[str]) -> list[str]:
    """The listed ids of the official test split that are not among `found`, sorted.

    found: the ids of the source's usable rows that are on the test side. Errors: `UserError` where
    ids are listed and none of them was found: most likely they are those of another data set.
    """
    listed = listed_test_ids(source)
    missing = sorted(listed.difference(found))
    if listed and len(missing) == len(listed):
        raise UserError(
            f"none of the {len(listed):,} listed test ids is that of a row, such as {missing[0]!r}",
            where="data.source.test_ids_path",
            remedy="name the rows' id column in `id_column`, or give the list that belongs to them",
        )
    return missing
