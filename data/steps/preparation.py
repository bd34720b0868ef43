"""What all steps of one preparation share: configuration, opened sources, places, helpers."""

from dataclasses import dataclass
from pathlib import Path

from configs.data_schema import (
    FilesSource,
    HubDataSource,
    MixtureSource,
    ParallelLinesSource,
    PresetSource,
    SingleSource,
    VotesSource,
)
from configs.schema import RunConfig
from data.conversation import Source
from data.load_source import open_source
from data.steps.ledger import Ledger
from data.steps.progress import PrepareProgress
from data.steps.spool import Spool
from data.steps.workers import Workers


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source of the configuration, opened; weight: its share in a mixture."""

    label: str
    config: SingleSource
    source: Source
    weight: float = 1.0
    is_evaluation_task: bool = False


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """One run of the stage; sources: those of the rows first, then those of evaluation tasks."""

    config: RunConfig
    sources: list[OpenSource]
    folder: Path
    spool: Spool
    ledger: Ledger
    workers: Workers
    progress: PrepareProgress

    @property
    def num_sources(self) -> int:
        """Sources of rows; the rest are evaluation tasks."""
        return sum(not one.is_evaluation_task for one in self.sources)

    @property
    def weights(self) -> list[float]:
        """Weights of the sources of rows."""
        return [one.weight for one in self.sources if not one.is_evaluation_task]


def open_sources(config: RunConfig) -> list[OpenSource]:
    """All sources that a configuration names; errors as `open_source` tells them."""
    source = config.data.source
    if isinstance(source, MixtureSource):
        parts = [(part.source, part.weight) for part in source.parts]
    else:
        parts = [(source, 1.0)]
    opened = [
        OpenSource(label=label_of(one), config=one, source=open_source(one), weight=weight)
        for one, weight in parts
    ]
    return opened + [
        OpenSource(
            label=label_of(one), config=one, source=open_source(one), is_evaluation_task=True
        )
        for one in config.evaluation_sources
    ]


def label_of(source: SingleSource) -> str:
    """A short name for reports."""
    match source:
        case FilesSource() | VotesSource():
            paths = source.path if isinstance(source.path, list) else [source.path]
            return ", ".join(path.name for path in paths[:3]) + (", …" if paths[3:] else "")
        case ParallelLinesSource():
            return f"{source.questions_path.name} and {source.answers_path.name}"
        case HubDataSource():
            return f"{source.id} ({source.subset})" if source.subset else source.id
        case PresetSource():
            return f"{source.name} ({source.subset})" if source.subset else source.name
        case _:
            return source.kind
