"""Which rows ask nearly the same, so that a split does not put one in training, one in the test.

Two rows are near duplicates when the Jaccard similarity of their n-gram sets reaches a threshold;
clusters are the connected components of that relation (as in Lee et al. 2022, arXiv 2107.06499).
MinHash and banding find the pairs worth comparing, so that the work grows with the number of rows
and not of pairs (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).
"""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data.copies.word_ngrams import (
    GOLDEN,
    Words,
    hash_ngrams,
    is_in,
    mix,
    ragged_ranges,
    sorted_unique,
    take_questions,
)

MAX_PERMUTATIONS = 128
# Of a longer text, the n-grams with the smallest hashes stand for all: the similarity is then
# estimated, with a standard error of √(J·(1 − J) / 512), 0.02 at J = 0.7.
SKETCH_SIZE = 512
# Rows of one bucket are compared with this many before them; buckets up to one more, all with all.
WINDOW = 6
# Arrays of a block stay in the processor's cache.
BLOCK_NGRAMS, BLOCK_PAIRS = 65_536, 4096


class Banding(NamedTuple):
    """MinHash values in bands: rows that agree in all values of any band are compared."""

    num_bands: int
    band_size: int

    def recall(self, similarity: float) -> float:
        """Chance that two rows of this similarity are compared: 1 − (1 − sʳ)ᵇ (MMDS 3.4.2)."""
        return 1 - (1 - similarity**self.band_size) ** self.num_bands


class Signatures(NamedTuple):
    """What clustering has to know of a batch of rows.

    band_keys: uint32, rows × bands; fingerprints: uint64, equal for equal n-gram sets; sketches:
    uint32, the rows' sorted n-gram hashes, the `SKETCH_SIZE` smallest of each; num_ngrams: int32,
    entries of each row there, 0 for a row that is like no other; truncated: bool, whether it has
    more n-grams.
    """

    band_keys: np.ndarray
    fingerprints: np.ndarray
    sketches: np.ndarray
    num_ngrams: np.ndarray
    truncated: np.ndarray


def choose_banding(threshold: float) -> Banding:
    """The longest bands whose recall is 0.98 at the threshold, and 0.999 a tenth above it.

    Longer bands make fewer dissimilar rows meet; all bands together have at most
    `MAX_PERMUTATIONS` values, or are of one value each.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold lies above 0 and is at most 1, not {threshold}")
    for band_size in range(MAX_PERMUTATIONS, 1, -1):
        for num_bands in range(1, MAX_PERMUTATIONS // band_size + 1):
            banding = Banding(num_bands, band_size)
            if (
                banding.recall(threshold) >= 0.98
                and banding.recall(min(1.0, threshold + 0.1)) >= 0.999
            ):
                return banding
    return Banding(MAX_PERMUTATIONS, 1)


def sign_rows(
    words: Words, *, ngram: int, threshold: float, template: np.ndarray | None = None
) -> Signatures:
    """The signatures of a batch, from the segments that ask; pure, for any process.

    template: sorted hashes of n-grams that count for nothing (`template_ngrams` of the same
    length). A row of which nothing is left, or that had no word, is like no other: of
    rows that ask only what the template asks, an image or the answer makes the difference.
    """
    questions = take_questions(words)
    ngrams = hash_ngrams(questions, ngram)
    rows, hashes = questions.rows[ngrams.segments], ngrams.hashes
    if template is not None and len(template):
        rare = ~is_in(hashes, template)
        rows, hashes = rows[rare], hashes[rare]
    # Sorted by row, then hash, each once; 32 bits of the hash are enough within a pair of rows.
    keys = sorted_unique((rows.astype(np.uint64) << np.uint64(32)) | (hashes >> np.uint64(32)))
    rows, values = (keys >> np.uint64(32)).astype(np.int64), keys.astype(np.uint32)
    counts = np.bincount(rows, minlength=words.num_rows)
    num_ngrams = np.minimum(counts, SKETCH_SIZE)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    fingerprints = np.zeros(words.num_rows, np.uint64)
    if len(filled):
        fingerprints[filled] = np.add.reduceat(mix(values * GOLDEN), starts[filled])
    return Signatures(
        band_keys=_band_keys(values, starts, filled, words.num_rows, choose_banding(threshold)),
        fingerprints=fingerprints,
        sketches=values[ragged_ranges(starts, num_ngrams)],
        num_ngrams=num_ngrams.astype(np.int32),
        truncated=counts > SKETCH_SIZE,
    )


class SignatureStore:
    """The signatures of all rows, their larger part in two files of `folder`; one process writes.

    Memory: 13 bytes a row; disk: 4 bytes a band and a row, and 4 an n-gram. A context, so that the
    files are closed; they are left for the folder's owner to remove.
    """

    def __init__(self, folder: Path, *, threshold: float) -> None:
        self._threshold = threshold
        self._num_bands = choose_banding(threshold).num_bands
        self._band_file = (folder / "band-keys").open("wb+")
        self._sketch_file = (folder / "sketches").open("wb+")
        self._fingerprints: list[np.ndarray] = []
        self._num_ngrams: list[np.ndarray] = []
        self._truncated: list[np.ndarray] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._band_file.close()
        self._sketch_file.close()

    def append(self, signatures: Signatures) -> None:
        """Add the next rows; those of `sign_rows` with the store's threshold."""
        signatures.band_keys.tofile(self._band_file)
        signatures.sketches.tofile(self._sketch_file)
        self._fingerprints.append(signatures.fingerprints)
        self._num_ngrams.append(signatures.num_ngrams)
        self._truncated.append(signatures.truncated)

    def cluster(self) -> np.ndarray:
        """For each row the smallest number of a row in its cluster: int64.

        Every pair that is joined was compared: exactly where both have at most `SKETCH_SIZE`
        n-grams. A pair at the threshold is missed with the chance that `Banding.recall` tells, or
        where more than `WINDOW` other rows crowd between the two in every bucket they share. The
        clusters depend on the rows alone, not on their order or on how they were cut into batches.
        """
        num_ngrams = _join(self._num_ngrams, np.int32)
        if not num_ngrams.any():
            return np.arange(len(num_ngrams))
        self._band_file.flush()
        self._sketch_file.flush()
        rows = _Rows(
            band_keys=np.memmap(
                self._band_file, np.uint32, "r", shape=(len(num_ngrams), self._num_bands)
            ),
            sketches=np.memmap(self._sketch_file, np.uint32, "r"),
            starts=np.cumsum(num_ngrams, dtype=np.int64) - num_ngrams,
            num_ngrams=num_ngrams,
            truncated=_join(self._truncated, np.bool_),
        )
        return _cluster(rows, _join(self._fingerprints, np.uint64), self._threshold)


class _Rows(NamedTuple):
    """The signatures of all rows: as in `Signatures`, and where each row's sketch starts."""

    band_keys: np.ndarray
    sketches: np.ndarray
    starts: np.ndarray
    num_ngrams: np.ndarray
    truncated: np.ndarray


def _band_keys(
    values: np.ndarray, starts: np.ndarray, filled: np.ndarray, num_rows: int, banding: Banding
) -> np.ndarray:
    """One hash for the MinHash values of each band and row, 0 for rows without n-grams.

    The permutations are multiplications by odd numbers modulo 2³², of hashes that are as good as
    random already.
    """
    factors = mix(np.arange(1, banding.num_bands * banding.band_size + 1, dtype=np.uint64) * GOLDEN)
    offsets = np.append(starts[filled], len(values))
    # Blocks of whole rows, of about as many n-grams.
    bounds = np.searchsorted(offsets, np.arange(0, len(values), BLOCK_NGRAMS))
    bounds = np.unique(np.append(bounds, len(filled)))
    sums = np.zeros((banding.num_bands, len(filled)), np.uint64)
    for first, last in pairwise(bounds):
        block = values[offsets[first] : offsets[last]]
        runs = offsets[first:last] - offsets[first]
        for number, factor in enumerate(factors):
            smallest = np.minimum.reduceat(block * np.uint32(factor | 1), runs)
            sums[number // banding.band_size, first:last] += smallest * factor
    keys = np.zeros((num_rows, banding.num_bands), np.uint32)
    keys[filled] = (mix(sums) >> np.uint64(32)).T
    return keys


def _cluster(rows: _Rows, fingerprints: np.ndarray, threshold: float) -> np.ndarray:
    labels = np.arange(len(fingerprints))
    # The order of what the rows hold: the clusters must not depend on the order of the rows.
    by_content = np.argsort(fingerprints, kind="stable")
    by_content = by_content[rows.num_ngrams[by_content] > 0]
    num_bands = rows.band_keys.shape[1]
    for band in range(num_bands):
        keys = rows.band_keys[:, band][by_content].astype(np.uint64)
        # Within a bucket, those that agree in the next band too stand side by side.
        following = rows.band_keys[:, (band + 1) % num_bands][by_content]
        order = np.argsort((keys << np.uint64(32)) | following, kind="stable")
        keys, in_buckets = keys[order], by_content[order]
        # Neighbours first: where they join whole buckets, the wider pairs need no comparing.
        for distances in (range(1, 2), range(2, WINDOW + 1)):
            pairs = _bucket_pairs(keys, in_buckets, labels, distances)
            labels = _join_pairs(labels, pairs[_are_similar(rows, pairs, threshold)])
    return labels


def _bucket_pairs(
    keys: np.ndarray, in_buckets: np.ndarray, labels: np.ndarray, distances: range
) -> np.ndarray:
    """Pairs of rows in one bucket, at one of the distances and not joined yet: pairs × 2."""
    found = [np.empty((0, 2), np.int64)]
    for distance in distances:
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        left, right = in_buckets[same], in_buckets[same + distance]
        apart = labels[left] != labels[right]
        found.append(np.column_stack((left[apart], right[apart])))
    return np.concatenate(found)


def _are_similar(rows: _Rows, pairs: np.ndarray, threshold: float) -> np.ndarray:
    similar = [
        _similarity(rows, pairs[start : start + BLOCK_PAIRS]) >= threshold
        for start in range(0, len(pairs), BLOCK_PAIRS)
    ]
    return _join(similar, np.bool_)


def _similarity(rows: _Rows, pairs: np.ndarray) -> np.ndarray:
    """The Jaccard similarity of each pair, estimated where a sketch does not hold all n-grams.

    A truncated sketch knows all n-grams up to its largest hash, so that the pair is compared on
    those: a random sample of the union (Beyer et al. 2007, doi 10.1145/1247480.1247504).
    """
    sizes = rows.num_ngrams[pairs].astype(np.int64)
    last = rows.sketches[rows.starts[pairs] + sizes - 1]
    known = np.where(rows.truncated[pairs], last, np.iinfo(np.uint32).max).min(axis=1)
    hashes = rows.sketches[ragged_ranges(rows.starts[pairs].ravel(), sizes.ravel())]
    numbers = np.repeat(np.arange(len(pairs)), sizes.sum(axis=1))
    within = hashes <= known[numbers]
    keys = (numbers[within].astype(np.uint64) << np.uint64(32)) | hashes[within]
    keys.sort()
    both = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
    num_shared = np.bincount(both.astype(np.int64), minlength=len(pairs))
    num_all = np.bincount(numbers[within], minlength=len(pairs)) - num_shared
    return np.asarray(num_shared / num_all)


def _join_pairs(labels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Labels with the clusters of each pair joined; a cluster's label is its smallest row."""
    if not len(pairs):
        return labels
    old, ends = np.unique(labels[pairs], return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (len(old), len(old)))
    _, component = connected_components(graph, directed=False)
    # `old` is sorted: the first of a component is the smallest.
    _, first = np.unique(component, return_index=True)
    new = np.arange(len(labels))
    new[old] = old[first[component]]
    return np.asarray(new[labels])


def _join(arrays: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays])
