"""Texts as hashed words and word n-grams, whole batches at a time in Rust and numpy.

Near-duplicate clusters and test-set contamination both compare n-grams of words, so that a text is
split and hashed once. The hashes are Tunery's own: a library's would change with its version, and
with them the clusters that decide the split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

# Written without spaces: a run of such letters is no word, so that each letter counts as one.
UNSPACED = "".join(
    rf"\p{{{script}}}"
    for script in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
)
WORD = rf"[{UNSPACED}]|[\w--[{UNSPACED}]]+"
# 2**64 over the golden ratio, and an odd number without structure of its own.
GOLDEN, BASE = np.uint64(0x9E3779B97F4A7C15), 0xD6E8FEB86659FD93
# Arrays of a block stay in the processor's cache.
BLOCK_WORDS = 8192


@dataclass(frozen=True)
class Words:
    """The words of a batch of rows, each row being one or more segments (turns) of text.

    hashes: uint32, all words in reading order; offsets: int64, segment i has
    hashes[offsets[i] : offsets[i + 1]]; rows: int64, the row of each segment from 0 to
    num_rows − 1, never falling; is_question: bool, whether a segment is part of what is asked and
    not an answer.
    """

    hashes: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    is_question: np.ndarray
    num_rows: int


class Ngrams(NamedTuple):
    """N-grams in reading order: uint64 hashes, and for each its words and where they stand.

    first_words: number of its first word within the batch; num_words: below n where the whole
    segment is shorter; segments: the segment it stands in; all int64.
    """

    hashes: np.ndarray
    first_words: np.ndarray
    num_words: np.ndarray
    segments: np.ndarray


def list_words(texts: pa.Array | Sequence[str]) -> pl.Series:
    """The words of each text, a list of strings: runs of letters, digits and underscores (`\\w`).

    Compatibility forms are resolved (NFKC: ligatures, full-width letters) and case is dropped.
    Of scripts without spaces every letter is a word. Raises UnicodeEncodeError for a str with
    half of a surrogate pair.
    """
    series = pl.Series(values=texts, dtype=pl.String)
    if series.null_count():
        raise ValueError("a text is missing")
    return series.str.normalize("NFKC").str.to_lowercase().str.extract_all(WORD)


def split_words(
    texts: pa.Array | Sequence[str],
    *,
    rows: np.ndarray,
    is_question: np.ndarray,
    num_rows: int,
) -> Words:
    """The hashed words of a batch: texts, rows and is_question have one entry a segment.

    An Arrow array of strings is read where it lies. Raises ValueError where the three do not fit
    together or a text is missing.
    """
    if not len(texts) == len(rows) == len(is_question):
        raise ValueError("texts, rows and is_question have one entry a segment")
    if np.any(np.diff(rows) < 0) or np.any((rows < 0) | (rows >= num_rows)):
        raise ValueError("rows must never fall, and lie in 0 … num_rows − 1")
    words = list_words(texts)
    return Words(
        hashes=_hash_strings(words.explode(empty_as_null=False)),
        offsets=_offsets(words.list.len().to_numpy()),
        rows=np.asarray(rows, np.int64),
        is_question=np.asarray(is_question, bool),
        num_rows=num_rows,
    )


def take_rows(words: Words, keep: np.ndarray) -> Words:
    """The rows for which `keep` (bool, one entry a row) holds, numbered anew from 0."""
    numbers = np.cumsum(keep) - 1
    kept = _take_segments(words, keep[words.rows])
    return Words(kept.hashes, kept.offsets, numbers[kept.rows], kept.is_question, int(np.sum(keep)))


def take_questions(words: Words) -> Words:
    """The same rows with those segments only that are part of what is asked."""
    return _take_segments(words, words.is_question)


def take_words(words: Words, keep: np.ndarray) -> Words:
    """The same segments with those words only for which `keep` (bool, one entry a word) holds."""
    kept_before = np.concatenate(([0], np.cumsum(keep)))
    return Words(
        words.hashes[keep],
        kept_before[words.offsets],
        words.rows,
        words.is_question,
        words.num_rows,
    )


def join_words(batches: Sequence[Words]) -> Words:
    """The rows of all batches, numbered through in their order."""
    first_rows = np.cumsum([0] + [batch.num_rows for batch in batches])
    return Words(
        np.concatenate([np.empty(0, np.uint32), *(batch.hashes for batch in batches)]),
        _offsets(
            np.concatenate([np.empty(0, np.int64), *(np.diff(one.offsets) for one in batches)])
        ),
        np.concatenate(
            [
                np.empty(0, np.int64),
                *(one.rows + first for one, first in zip(batches, first_rows, strict=False)),
            ]
        ),
        np.concatenate([np.empty(0, bool), *(batch.is_question for batch in batches)]),
        int(first_rows[-1]),
    )


def cut_words(words: Words, *, max_words: int) -> Iterator[Words]:
    """Parts of a batch, whole segments up to `max_words` words or a longer one; rows keep numbers.

    There is one part at least, and no words are copied.
    """
    first = 0
    while True:
        most = words.offsets[first] + max_words
        last = max(first + 1, int(np.searchsorted(words.offsets, most, side="right")) - 1)
        start, end = words.offsets[first], words.offsets[min(last, len(words.rows))]
        yield Words(
            words.hashes[start:end],
            words.offsets[first : last + 1] - start,
            words.rows[first:last],
            words.is_question[first:last],
            words.num_rows,
        )
        first = last
        if first >= len(words.rows):
            return


def save_words(words: Words, file: Path) -> None:
    """Write words for a later stage, 4 bytes each."""
    with file.open("wb") as handle:
        np.savez(handle, **vars(words))


def load_words(file: Path) -> Words:
    """The words that `save_words` wrote."""
    with np.load(file) as arrays:
        return Words(**{**arrays, "num_rows": int(arrays["num_rows"])})


def hash_ngrams(words: Words, ngram: int) -> Ngrams:
    """Every run of `ngram` words within a segment; a shorter segment counts as one n-gram whole.

    Segments without a word have none. The hash of words w₀ … wₙ₋₁ is the finalizer over
    Σ wᵢ·Bⁱ + n·golden modulo 2⁶⁴, from prefix sums: the cost does not grow with n (Karp and Rabin
    1987, doi 10.1147/rd.312.0249). Equal words have equal hashes, whatever n was asked for.
    """
    if ngram < 1:
        raise ValueError(f"an n-gram has at least one word, not {ngram}")
    lengths = np.diff(words.offsets)
    num_ngrams = np.where(lengths >= ngram, lengths - ngram + 1, np.minimum(lengths, 1))
    segments = np.repeat(np.arange(len(lengths)), num_ngrams)
    first_words = ragged_ranges(words.offsets[:-1], num_ngrams)
    num_words = np.minimum(lengths, ngram)[segments]
    hashes = _run_sums(words.hashes, first_words, num_words)
    hashes += num_words.astype(np.uint64) * GOLDEN
    return Ngrams(mix(hashes), first_words, num_words, segments)


def whole_segment_hashes(words: Words) -> np.ndarray:
    """For each segment the hash of the one n-gram of all its words: uint64."""
    lengths = np.diff(words.offsets)
    hashes = _run_sums(words.hashes, words.offsets[:-1], lengths)
    return mix(hashes + lengths.astype(np.uint64) * GOLDEN)


def template_ngrams(words: Words, *, ngram: int, more_than_rows: int) -> np.ndarray:
    """A template's n-grams: those in over half of a sample's rows, and in over `more_than_rows`.

    words: a sample of one source's rows (5,000 are plenty), chosen by their content. Returns sorted
    uint64 hashes; `np.union1d` joins those of several sources.
    """
    ngrams = hash_ngrams(words, ngram)
    # In reading order, so that the same n-gram of one row lies side by side.
    order = np.argsort(ngrams.hashes, kind="stable")
    hashes, rows = ngrams.hashes[order], words.rows[ngrams.segments[order]]
    distinct, num_rows = np.unique(hashes[starts_of_runs(hashes, rows)], return_counts=True)
    return np.asarray(distinct[(num_rows > more_than_rows) & (2 * num_rows > words.num_rows)])


def is_in(hashes: np.ndarray, sorted_hashes: np.ndarray) -> np.ndarray:
    """Which of the hashes are among the sorted ones: bool."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    found = np.searchsorted(sorted_hashes, hashes)
    found[found == len(sorted_hashes)] = 0
    return np.asarray(sorted_hashes[found] == hashes)


def cover_words(num_words: int, first_words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which of `num_words` words lie within one of the runs: bool."""
    steps = np.bincount(first_words, minlength=num_words + 1)
    steps -= np.bincount(first_words + lengths, minlength=num_words + 1)
    return np.asarray(np.cumsum(steps[:num_words]) > 0)


def ragged_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, … for each of the starts, `length` numbers each, in one array: int64."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(np.sum(lengths))) + np.repeat(starts - before, lengths))


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """The distinct values in order; `np.unique` goes through a hash table, ten times as slowly."""
    ordered = np.sort(values)
    return np.asarray(ordered[starts_of_runs(ordered)])


def starts_of_runs(*columns: np.ndarray) -> np.ndarray:
    """Which entries differ from the one before in any of the columns, the first always: bool."""
    differs = [column[1:] != column[:-1] for column in columns]
    return np.append(True, np.logical_or.reduce(differs))[: len(columns[0])]


def mix(values: np.ndarray) -> np.ndarray:
    """Finalizer of SplitMix64 (Steele et al. 2014, doi 10.1145/2660193.2660195); uint64."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray(mixed)


def _take_segments(words: Words, keep: np.ndarray) -> Words:
    lengths = np.diff(words.offsets)
    return Words(
        words.hashes[np.repeat(keep, lengths)],
        _offsets(lengths[keep]),
        words.rows[keep],
        words.is_question[keep],
        words.num_rows,
    )


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _hash_strings(strings: pl.Series) -> np.ndarray:
    """A hash of each string that two strings share with probability 2⁻³²: uint32."""
    array = strings.to_arrow(compat_level=pl.CompatLevel.oldest())
    if not len(array):
        return np.empty(0, np.uint32)
    _, offsets_buffer, bytes_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    characters = np.frombuffer(bytes_buffer, np.uint8)
    hashes = np.empty(len(array), np.uint32)
    for start in range(0, len(array), BLOCK_WORDS):
        block = offsets[start : start + BLOCK_WORDS + 1]
        runs = block - block[0]
        sums = _run_sums(characters[block[0] : block[-1]], runs[:-1], np.diff(runs))
        hashes[start : start + BLOCK_WORDS] = mix(sums) >> np.uint64(32)
    return hashes


def _run_sums(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Σ vᵢ·Bⁱ modulo 2⁶⁴ over each run of values, i counted from its start: uint64."""
    powers, inverses = _powers(len(values))
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers, out=sums[1:])
    return np.asarray((sums[starts + lengths] - sums[starts]) * inverses[starts])


def _powers(num_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse modulo 2⁶⁴, at least num_words + 1 of each."""
    powers, inverses = _power_table(1 << max(num_words, 4095).bit_length())
    return powers[:num_words], inverses[: num_words + 1]


@lru_cache(maxsize=1)
def _power_table(size: int) -> tuple[np.ndarray, np.ndarray]:
    def powers_of(base: int) -> np.ndarray:
        factors = np.full(size, base, np.uint64)
        factors[0] = 1
        return np.multiply.accumulate(factors)

    return powers_of(BASE), powers_of(pow(BASE, -1, 2**64))
