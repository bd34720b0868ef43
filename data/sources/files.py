"""Local files of rows: JSON Lines, JSON, CSV, TSV and Parquet, plain or compressed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from configs.data_schema import FilesSource
from configs.errors import UserError
from data.conversation import FixedSide, ReadRows
from data.sources.arrow_batches import parquet_chunks
from data.sources.csv_records import record_chunks
from data.sources.json_items import item_chunks
from data.sources.json_lines import line_chunks
from data.sources.paths import expand_paths, short_names
from data.sources.streams import MAX_ROW_BYTES, Place, open_stream
from data.sources.table import RowRules, TableChunk, settle_rules

Format = Literal["jsonl", "json", "csv", "tsv", "parquet"]
FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
TOLD: dict[Format, str] = {
    "jsonl": "JSON Lines",
    "json": "JSON",
    "csv": "CSV",
    "tsv": "TSV",
    "parquet": "Parquet",
}
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file, what it is called where its rows are told, how it is read, and its side."""

    path: Path
    name: str
    format: Format
    side: FixedSide
    columns: list[str] | None
    key_column: str

    def chunks(self) -> Iterator[TableChunk]:
        """The file's rows. Errors: `UserError` with the place where it is damaged."""
        if self.format == "parquet":
            yield from parquet_chunks(self.path, name=self.name, side=self.side)
            return
        place = Place(self.path, unit="row" if self.format == "json" else "line")
        with open_stream(place) as stream:
            if self.format == "jsonl":
                yield from line_chunks(stream, name=self.name, side=self.side, place=place)
            elif self.format == "json":
                yield from item_chunks(
                    stream,
                    name=self.name,
                    side=self.side,
                    place=place,
                    key_column=self.key_column,
                )
            else:
                yield from record_chunks(
                    stream,
                    name=self.name,
                    side=self.side,
                    place=place,
                    delimiter="\t" if self.format == "tsv" else ",",
                    columns=self.columns,
                )


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """The rows of local files."""

    files: tuple[DataFile, ...]
    rules: RowRules
    licence: str
    attribution: str
    told: str

    @property
    def test_ids(self) -> frozenset[str]:
        """Ids of an official test split, all of which ought to be met."""
        return self.rules.test_ids

    def chunks(self) -> Iterator[TableChunk]:
        """The files' rows, file by file."""
        for file in self.files:
            yield from file.chunks()

    def read(self, chunk: TableChunk) -> ReadRows:
        """The conversations of a chunk."""
        return self.rules.read(chunk.rows(), chunk.side)


def open_files(config: FilesSource) -> FileRows:
    """Find the files, tell their formats, and settle the shape of their rows.

    Where there are official test files, the rows of `path` are for training; else they are free to
    be held out.
    Errors: `UserError` for files that cannot be read, are on two sides, or hold no usable rows.
    """
    paths: list[tuple[FixedSide, list[Path]]] = [
        ("train" if config.test_path else "", expand_paths(config.path, key="path")),
        ("validation", expand_paths(config.validation_path, key="validation_path")),
        ("test", expand_paths(config.test_path, key="test_path")),
    ]
    everything = [path for _, own in paths for path in own]
    _check_once(everything)
    names = dict(zip(everything, short_names(everything), strict=True))
    files = [
        DataFile(
            path=path,
            name=names[path],
            format=config.format or tell_format(path),
            side=side,
            columns=config.columns,
            key_column=config.id_column,
        )
        for side, own in paths
        for path in own
    ]
    _check_columns(config, files)
    settled = settle_rules(config, _samples(files), what=_told_files(files))
    return FileRows(
        files=tuple(files),
        rules=settled.rules,
        licence=config.licence,
        attribution=config.attribution,
        told=settled.told,
    )


def tell_format(path: Path) -> Format:
    """The format that the file's name tells. Errors: `UserError` for a name that tells none.

    Many files named .json hold JSON Lines: where the first line is an object by itself and another
    line follows, it is that.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    suffix = (suffixes[:-1] if packed else suffixes)[-1:]
    found = FORMATS.get(suffix[0]) if suffix else None
    if found is None or (packed and found == "parquet"):
        raise UserError(
            "the file's name does not tell a format that can be read",
            where=path,
            remedy="name the `format` (jsonl, json, csv, tsv or parquet), or rename the file; "
            ".gz and .zst may follow for all but parquet",
        )
    return "jsonl" if found == "json" and _is_json_lines(path) else found


def _is_json_lines(path: Path) -> bool:
    with open_stream(Place(path, unit="row")) as stream:
        first = stream.readline(MAX_ROW_BYTES)
        if not first.lstrip().startswith(b"{") or not stream.read(1):
            return False
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return True


def _check_once(paths: Sequence[Path]) -> None:
    real = [path.resolve() for path in paths]
    twice = next((path for path in paths if real.count(path.resolve()) > 1), None)
    if twice is not None:
        raise UserError(
            "the same file is named more than once",
            where=twice,
            remedy="name each file once, under `path`, `validation_path` or `test_path`",
        )


def _check_columns(config: FilesSource, files: Sequence[DataFile]) -> None:
    if config.columns and any(file.format not in ("csv", "tsv") for file in files):
        raise UserError(
            "`columns` names the columns of CSV and TSV files, and these are others",
            where=next(file.path for file in files if file.format not in ("csv", "tsv")),
            remedy="leave `columns` out",
        )


def _samples(files: Sequence[DataFile]) -> list[tuple[str, Iterator[TableChunk]]]:
    """The first file of each side, and its chunks."""
    first = {file.side: file for file in reversed(files)}
    return [(str(file.path), file.chunks()) for file in files if first[file.side] is file]


def _told_files(files: Sequence[DataFile]) -> str:
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    formats = ", ".join(dict.fromkeys(TOLD[file.format] for file in files))
    return f"{files[0].name}{more}: {formats}"
