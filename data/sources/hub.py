"""Data sets on the Hugging Face hub, or folders that `datasets.load_dataset` reads, as streams."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import datasets
import httpx
import pyarrow as pa
from huggingface_hub import HfApi

from configs.data_schema import HubDataSource, QuestionAnswerShape
from configs.errors import UserError
from data.conversation import FixedSide, ReadRows
from data.sources.arrow_batches import CHUNK_BYTES, MAX_CHUNK_ROWS, ArrowChunk, arrow_chunk
from data.sources.paths import is_local_folder, local_folder
from data.sources.table import RowRules, settle_rules

BATCH_ROWS = 250
COMMIT = re.compile(r"[0-9a-f]{40}")
BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
FAILURES = (
    OSError,
    ValueError,
    RuntimeError,
    StopIteration,
    pa.ArrowException,
    datasets.exceptions.DatasetsError,
    httpx.HTTPError,
)
REMEDY = "check id, subset, revision and split names, and the network"


@dataclass(frozen=True, kw_only=True)
class HubSplits:
    """Which splits of a data set are read.

    revision: the commit, empty for a local folder. files: for splits that are not found by their
    files' names, the pattern of their files within the data set.
    """

    id: str
    subset: str | None
    revision: str
    splits: tuple[tuple[str, FixedSide], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def chunks(self) -> Iterator[ArrowChunk]:
        """The rows, split by split. Errors: `UserError` for a split that cannot be read."""
        for split, side in self.splits:
            yield from self.chunks_of(split, side)

    def chunks_of(self, split: str, side: FixedSide) -> Iterator[ArrowChunk]:
        """The rows of one split."""
        name = f"{self.id}[{split}]"
        tables: list[pa.Table] = []
        first = 0
        with self._told_failures(split):
            batches = self.load(split).with_format("arrow").iter(batch_size=BATCH_ROWS)
            for batch in batches:
                tables.append(batch)
                num_rows = sum(table.num_rows for table in tables)
                if num_rows < MAX_CHUNK_ROWS and sum(t.nbytes for t in tables) < CHUNK_BYTES:
                    continue
                yield self._chunk(tables, name, side, first)
                first, tables = first + num_rows, []
            if tables:
                yield self._chunk(tables, name, side, first)

    def features(self) -> Mapping[str, Any]:
        """The columns' types in the first split, as far as the data set declares them."""
        split, _ = self.splits[0]
        with self._told_failures(split):
            return self.load(split).features or {}

    def load(self, split: str) -> datasets.IterableDataset:
        """A split as `datasets` streams it."""
        if split in self.files:
            pattern = self.files[split]
            builder = BUILDERS[PurePosixPath(pattern).suffix]
            more = {"sep": "\t"} if pattern.endswith(".tsv") else {}
            return datasets.load_dataset(
                builder,
                data_files={split: f"{self._root()}/{pattern}"},
                split=split,
                streaming=True,
                **more,
            )
        path = str(local_folder(self.id)) if is_local_folder(self.id) else self.id
        return datasets.load_dataset(
            path, self.subset, split=split, revision=self.revision or None, streaming=True
        )

    def _root(self) -> str:
        if is_local_folder(self.id):
            return str(local_folder(self.id))
        return f"hf://datasets/{self.id}@{self.revision}"

    def _chunk(self, tables: list[pa.Table], name: str, side: FixedSide, first: int) -> ArrowChunk:
        rows = pa.concat_tables(tables).combine_chunks()
        return arrow_chunk(rows, name=name, side=side, first=first, class_names=self.class_names)

    @contextmanager
    def _told_failures(self, split: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            # An empty file makes the reader stop where it looks for the columns.
            told = "it holds no rows" if isinstance(error, StopIteration) else str(error)
            first_line = (told or type(error).__name__).splitlines()[0]
            raise UserError(
                f"cannot read split {split!r} of {self.id}: {first_line}",
                where="data.source",
                remedy=REMEDY,
            ) from error


@dataclass(frozen=True, kw_only=True)
class HubRows:
    """The rows of a data set."""

    data_set: HubSplits
    rules: RowRules
    licence: str
    attribution: str
    told: str

    @property
    def revision(self) -> str:
        """The commit that is read; empty for a local folder."""
        return self.data_set.revision

    @property
    def test_ids(self) -> frozenset[str]:
        """Ids of an official test split, all of which ought to be met."""
        return self.rules.test_ids

    def chunks(self) -> Iterator[ArrowChunk]:
        """The rows, split by split. Errors: `UserError` for a split that cannot be read."""
        return self.data_set.chunks()

    def read(self, chunk: ArrowChunk) -> ReadRows:
        """The conversations of a chunk."""
        return self.rules.read(chunk.rows(), chunk.side)


def open_hub(config: HubDataSource, *, files: Mapping[str, str] | None = None) -> HubRows:
    """Fix the commit that is read, and settle the shape of the rows.

    files: by split, the pattern of its files within the data set, where names do not tell it.
    Class numbers are told by their names where they are free answers, or where no shape is
    configured; a configured template or multiple choice takes the numbers.
    Errors: `UserError` where the data set cannot be read, or holds no usable rows.
    """
    data_set = HubSplits(
        id=config.id,
        subset=config.subset,
        revision=resolve_revision(config.id, config.revision),
        splits=_splits(config),
        files=files or {},
    )
    data_set = replace(data_set, class_names=_class_names(config, data_set.features()))
    samples = [
        (f"{config.id}[{split}]", data_set.chunks_of(split, side))
        for split, side in data_set.splits
    ]
    settled = settle_rules(config, samples, what=config.id)
    return HubRows(
        data_set=data_set,
        rules=settled.rules,
        licence=config.licence,
        attribution=config.attribution or config.id,
        told=settled.told,
    )


def resolve_revision(id: str, revision: str | None) -> str:
    """The commit that a branch or tag names now; empty for a local folder.

    Errors: `UserError` where the hub does not tell, for a folder that is not there, and for a
    revision of a folder.
    """
    if is_local_folder(id):
        if revision is not None or not local_folder(id).is_dir():
            what = "a local folder has no revision" if revision else f"no such folder: {id}"
            raise UserError(
                what,
                where="data.source.id",
                remedy="a folder begins with `/`, `./`, `../` or `~` and is looked for from the "
                "working directory; anything else is `owner/name` on the hub",
            )
        return ""
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        return str(HfApi().dataset_info(id, revision=revision).sha)
    except (OSError, ValueError, httpx.HTTPError) as error:
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {id}: {told}", where="data.source", remedy=REMEDY) from error


def _splits(config: HubDataSource) -> tuple[tuple[str, FixedSide], ...]:
    """The configured splits; without an official test split the rows are free to be held out."""
    splits: list[tuple[str, FixedSide]] = [
        (config.train_split, "train" if config.test_split else "")
    ]
    if config.validation_split is not None:
        splits.append((config.validation_split, "validation"))
    if config.test_split is not None:
        splits.append((config.test_split, "test"))
    return tuple(splits)


def _class_names(config: HubDataSource, features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    shape = config.shape
    if shape is not None and not isinstance(shape, QuestionAnswerShape):
        return {}
    names: dict[str, tuple[str, ...]] = {}
    for column, feature in features.items():
        kind = getattr(feature, "feature", feature)
        if isinstance(kind, datasets.ClassLabel) and (shape is None or column == shape.answer):
            names[column] = tuple(kind.names)
    return names
