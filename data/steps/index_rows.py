"""What has to be known of all rows at once to decide about them: places and a few hashes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa

from configs.data_schema import NearDuplicatesConfig
from data.copies.near_duplicates import SignatureStore
from data.copies.unique_rows import ExactCluster
from data.copies.word_ngrams import Words, join_words, load_words, take_rows, template_ngrams
from data.splits import RaggedHashes, RowFacts, units_of
from data.steps.bucket_words import sign_bucket, words_file
from data.steps.index_bucket import BucketIndex, index_bucket
from data.steps.preparation import Preparation
from data.steps.spool import NUM_BUCKETS, Spool

# Rows of a source that tell what its template says in all of them.
SAMPLE_ROWS = 5000


@dataclass(frozen=True, kw_only=True)
class RowIndex:
    """All unique rows, bucket by bucket; starts: number of each bucket's first row, and of all.

    renamed: rows whose id another row has too; template: sorted n-gram hashes of
    what the templates say in every row, which makes no two rows alike.
    """

    starts: np.ndarray
    where: pa.ChunkedArray
    renamed: np.ndarray
    facts: RowFacts
    unit: np.ndarray
    exact: list[ExactCluster]
    exact_kept: np.ndarray
    template: np.ndarray

    def rows_of(self, bucket: int) -> slice:
        """The numbers of a bucket's rows."""
        return slice(int(self.starts[bucket]), int(self.starts[bucket + 1]))

    def bucket_of(self, row: int) -> int:
        """The bucket that a row lies in."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def clusters(self) -> Iterator[dict[str, Any]]:
        """All clusters of equal and of nearly equal rows, for clusters.jsonl."""
        for one in self.exact:
            yield {"kind": "exact", "rows": one.where}
        order = np.argsort(self.facts.cluster, kind="stable")
        sizes = np.unique(self.facts.cluster, return_counts=True)[1]
        ends = np.cumsum(sizes)
        for size, end in zip(sizes[sizes > 1], ends[sizes > 1], strict=True):
            members = order[end - size : end]
            yield {"kind": "near", "rows": self.where.take(members).to_pylist()}


def index_rows(preparation: Preparation, num_rows: int) -> RowIndex:
    """Drop equal rows, find what belongs together; num_rows: rows in the spool."""
    config = preparation.config.data
    spool = preparation.spool
    with preparation.progress.step("comparing", 2 * num_rows) as step:
        buckets = []
        work = partial(index_bucket, spool, preparation.num_sources)
        for bucket in preparation.workers.map(work, range(NUM_BUCKETS)):
            buckets.append(bucket)
            step.advance(len(bucket.fixed) + sum(len(one.where) - 1 for one in bucket.exact))
        starts = np.cumsum([0, *(len(bucket.fixed) for bucket in buckets)])
        near = config.near_duplicates
        template = _template_ngrams(spool, buckets, near)
        sign = partial(
            sign_bucket, spool, ngram=near.ngram, threshold=near.threshold, template=template
        )
        with SignatureStore(spool.folder, threshold=near.threshold) as store:
            for signatures in preparation.workers.map(sign, range(NUM_BUCKETS)):
                store.append(signatures)
                step.advance(len(signatures.fingerprints))
            cluster = store.cluster()
    facts = _join_facts(buckets, cluster, preparation.num_sources)
    first_rows = np.repeat(starts[:-1], [len(bucket.exact) for bucket in buckets])
    return RowIndex(
        starts=starts,
        where=pa.chunked_array([bucket.where for bucket in buckets]),
        renamed=_given_twice(np.concatenate([bucket.id_hash for bucket in buckets]), facts.task),
        facts=facts,
        unit=units_of(facts),
        exact=[one for bucket in buckets for one in bucket.exact],
        exact_kept=np.concatenate([bucket.exact_kept for bucket in buckets]) + first_rows,
        template=template,
    )


def _template_ngrams(
    spool: Spool, buckets: list[BucketIndex], config: NearDuplicatesConfig
) -> np.ndarray:
    """What the template of any source says, told from the first rows of each by their hashes."""
    found = [
        template_ngrams(words, ngram=config.ngram, more_than_rows=config.max_held_out_rows)
        for words in _sample_words(spool, buckets)
    ]
    return reduce(np.union1d, found, np.empty(0, np.uint64))


def _sample_words(spool: Spool, buckets: list[BucketIndex]) -> list[Words]:
    """The words of up to `SAMPLE_ROWS` rows of each source."""
    parts: dict[int, list[Words]] = {}
    num_rows: Counter[int] = Counter()
    for bucket in buckets:
        wanted = [n for n in np.unique(bucket.source).tolist() if num_rows[n] < SAMPLE_ROWS]
        words = load_words(words_file(spool, bucket.bucket)) if wanted else None
        for number in wanted:
            assert words is not None
            own = take_rows(words, bucket.source == number)
            parts.setdefault(number, []).append(own)
            num_rows[number] += own.num_rows
    return [join_words(own) for own in parts.values()]


def _join_facts(buckets: list[BucketIndex], cluster: np.ndarray, num_sources: int) -> RowFacts:
    lengths = [np.diff(bucket.asked.offsets) for bucket in buckets]
    source = np.concatenate([bucket.source for bucket in buckets])
    return RowFacts(
        group=np.concatenate([bucket.group for bucket in buckets]),
        question=np.concatenate([bucket.question for bucket in buckets]),
        asked=RaggedHashes(
            np.concatenate([bucket.asked.values for bucket in buckets]),
            np.cumsum(np.concatenate([[0], *lengths])),
        ),
        fixed=np.concatenate([bucket.fixed for bucket in buckets]),
        source=source,
        task=source >= num_sources,
        cluster=cluster,
    )


def _given_twice(id_hash: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Rows whose id another row has too; rows of evaluation tasks are not written."""
    _, inverse, counts = np.unique(id_hash[~task], return_inverse=True, return_counts=True)
    found = np.zeros(len(id_hash), bool)
    found[~task] = counts[inverse] > 1
    return found
