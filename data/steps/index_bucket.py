"""From a bucket of rows to what decides about them; runs in any of several processes.

Equal rows meet in one bucket, so this is also where all but one of them go.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from data.copies.unique_rows import ExactCluster, drop_equal_rows
from data.copies.word_ngrams import save_words, split_words
from data.splits import RaggedHashes
from data.steps.bucket_words import words_file
from data.steps.spool import Spool


class Segments(NamedTuple):
    """All turns of a bucket: text, row in the bucket, whether it is part of what is asked."""

    texts: list[str]
    rows: np.ndarray
    is_question: np.ndarray


@dataclass(frozen=True, kw_only=True)
class BucketIndex:
    """A bucket's unique rows, which now stand alone in the spool, in the order of their keys.

    id_hash: uint64 of the id; where: their places; exact: clusters of equal rows, exact_kept the
    number of the row that stayed of each; the other arrays as in `RowFacts`.
    """

    bucket: int
    where: pa.Array
    id_hash: np.ndarray
    group: np.ndarray
    question: np.ndarray
    asked: RaggedHashes
    fixed: np.ndarray
    source: np.ndarray
    exact: list[ExactCluster]
    exact_kept: np.ndarray


def index_bucket(spool: Spool, num_sources: int, bucket: int) -> BucketIndex:
    """Drop equal rows of a bucket, and keep the words of the others beside it."""
    unique = drop_equal_rows(spool.read(bucket), num_sources=num_sources)
    table = unique.table.combine_chunks()
    spool.replace(bucket, table)
    segments = segments_of(table)
    words = split_words(
        segments.texts,
        rows=segments.rows,
        is_question=segments.is_question,
        num_rows=table.num_rows,
    )
    save_words(words, words_file(spool, bucket))
    asked = table.column("asked").combine_chunks()
    return BucketIndex(
        bucket=bucket,
        where=table.column("where").combine_chunks(),
        id_hash=pl.Series(table.column("id")).hash(seed=0).to_numpy(),
        group=table.column("group_hash").to_numpy(),
        question=table.column("question").to_numpy(),
        asked=RaggedHashes(
            np.asarray(asked.flatten()), np.asarray(asked.offsets) - asked.offsets[0].as_py()
        ),
        fixed=table.column("side").to_numpy(),
        source=table.column("source").to_numpy(),
        exact=unique.clusters,
        exact_kept=unique.kept,
    )


def segments_of(table: pa.Table) -> Segments:
    """The turns of rows that have any text."""
    texts: list[str] = []
    rows: list[int] = []
    is_question: list[bool] = []
    for number, messages in enumerate(table.column("messages").to_pylist()):
        for turn in orjson.loads(messages):
            content = turn["content"]
            if not isinstance(content, str):
                content = "\n".join(part.get("text", "") for part in content)
            texts.append(content)
            rows.append(number)
            is_question.append(turn["role"] != "assistant")
    return Segments(texts, np.array(rows, np.int64), np.array(is_question, bool))
