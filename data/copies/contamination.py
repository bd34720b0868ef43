"""Which evaluation rows stand in the training rows, so that a score is not one of memory.

Words of an evaluation row count as copied where their 13-grams occur in training rows (Brown et al.
2020, arXiv 2005.14165, appendix C), and the row as contaminated from a share of its words on, as
Llama 2 judges it (Touvron et al. 2023, arXiv 2307.09288, A.6). The question is what is judged, as
in Tülu 3 (Lambert et al. 2024, arXiv 2411.15124): long answers that many rows share are often what
is to be learned, and a copied question is known whatever was answered to it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from data.copies.word_ngrams import (
    Ngrams,
    Words,
    cover_words,
    cut_words,
    hash_ngrams,
    is_in,
    list_words,
    ragged_ranges,
    split_words,
    starts_of_runs,
    take_words,
    whole_segment_hashes,
)

# An n-gram that stands in more evaluation rows than this says little about any of them: it counts
# as copied, but training rows are not compared with all those rows because of it.
MAX_ROWS_PER_NGRAM = 8
# Words of evaluation rows that are hashed at a time, which bounds the memory.
BLOCK_WORDS = 500_000
NO_ROW = np.iinfo(np.int64).max


class Hits(NamedTuple):
    """What a batch of training rows has in common with the evaluation rows.

    ngrams: int64, numbers of the index's n-grams that occur, and first_rows: int64, the smallest
    number of a training row that has each; eval_rows: int64, train_rows: int64 and question_words:
    int64: for evaluation rows the batch's training row that copies most of the question, and how
    many of its words.
    """

    ngrams: np.ndarray
    first_rows: np.ndarray
    eval_rows: np.ndarray
    train_rows: np.ndarray
    question_words: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """An evaluation row of which some words are copied.

    coverage: share of the question's words that lie within n-grams of any training rows;
    answer_coverage: the same of the answers' words; train_row: the number of the training row that
    copies most of the question; is_dirty: whether the row counts as contaminated.
    """

    eval_row: int
    train_row: int
    coverage: float
    answer_coverage: float
    is_dirty: bool


class SharedRun(NamedTuple):
    """The longest run of words that two texts share: how many, and the words."""

    num_words: int
    text: str


@dataclass(frozen=True, kw_only=True)
class EvaluationIndex:
    """The n-grams of all evaluation rows; about 30 bytes a word of theirs.

    hashes: uint64, sorted, each once; may_hold: uint8, a bit for each value of the hashes' first
    bits, set where there is such a hash; starts: int32, n-gram i stands at the places starts[i] …
    starts[i + 1] in the order of the rows, each place having its first word (first_words, int32)
    and its number of words (num_words, int32); word_rows: int32 and is_question: bool, for each
    word; counts: bool, whether a word is within any n-gram; template: sorted hashes of the
    templates' n-grams, of template_ngram words each.
    """

    ngram: int
    template_ngram: int
    num_rows: int
    hashes: np.ndarray
    may_hold: np.ndarray
    starts: np.ndarray
    first_words: np.ndarray
    num_words: np.ndarray
    word_rows: np.ndarray
    is_question: np.ndarray
    counts: np.ndarray
    template: np.ndarray

    @classmethod
    def build(
        cls,
        words: Words,
        *,
        ngram: int,
        template: np.ndarray | None = None,
        template_ngram: int = 3,
    ) -> Self:
        """Index evaluation rows, numbered as in `words`.

        Words within a template's n-gram (`template_ngrams` of template_ngram words) do not count.
        Question segments with fewer than `ngram` other words count by the whole segment, which
        must be a whole question segment of a training row too; such answers do not count.
        """
        if template is None:
            template = np.empty(0, np.uint64)
        parts = [
            _places_of(part, ngram, template, template_ngram)
            for part in cut_words(words, max_words=BLOCK_WORDS)
        ]
        num_words = [len(part.word_rows) for part in parts]
        for part, before in zip(parts, np.cumsum(num_words) - num_words, strict=True):
            part.first_words[:] += before
        places = _Places(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        order = np.argsort(places.hashes, kind="stable")
        hashes = places.hashes[order]
        starts = np.flatnonzero(starts_of_runs(hashes))
        hashes = hashes[starts]
        return cls(
            ngram=ngram,
            template_ngram=template_ngram,
            num_rows=words.num_rows,
            hashes=hashes,
            may_hold=_build_filter(hashes),
            starts=np.append(starts, len(order)).astype(np.int32),
            first_words=places.first_words[order],
            num_words=places.num_words[order],
            word_rows=places.word_rows,
            is_question=places.is_question,
            counts=places.counts,
            template=template,
        )

    def save(self, folder: Path) -> None:
        """Write a new folder that `load` reads."""
        folder.mkdir()
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", np.asarray(getattr(self, field.name)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map a saved index into memory, which all processes share."""
        arrays = {
            field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r")
            for field in fields(cls)
        }
        numbers = {name: int(array) for name, array in arrays.items() if array.ndim == 0}
        return cls(**(arrays | numbers))

    def scan(self, words: Words, row_numbers: np.ndarray) -> Hits:
        """What a batch of rows has in common with the evaluation rows; pure, for any process.

        row_numbers: int64, for each row its number among all rows, negative where it is none to
        train on and is passed over.
        """
        counted, ngrams = _counted_ngrams(words, self.ngram, self.template, self.template_ngram)
        numbers = row_numbers[counted.rows[ngrams.segments]]
        likely = np.flatnonzero(_may_hold(self.may_hold, ngrams.hashes) & (numbers >= 0))
        hashes, numbers = ngrams.hashes[likely], numbers[likely]
        held = is_in(hashes, self.hashes)
        # Each n-gram once a row, rows in order.
        found = np.searchsorted(self.hashes, hashes[held])
        order = np.lexsort((found, numbers[held]))
        found, numbers = found[order], numbers[held][order]
        first = starts_of_runs(found, numbers)
        found, numbers = found[first], numbers[first]
        occurring, first_places = np.unique(found, return_index=True)
        best = self._best_rows(found, numbers)
        return Hits(occurring, numbers[first_places], *best)

    def _best_rows(
        self, found: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For evaluation rows: the training row with most of the question, and its words of it."""
        num_places = np.minimum(np.diff(self.starts)[found], MAX_ROWS_PER_NGRAM)
        places = ragged_ranges(self.starts[found], num_places)
        trains = np.repeat(numbers, num_places)
        asked = self.is_question[self.first_words[places]]
        places, trains = places[asked], trains[asked]
        order = np.lexsort((self.first_words[places], trains))
        places, trains = places[order], trains[order]
        firsts, lengths = self.first_words[places], self.num_words[places]
        evals = self.word_rows[firsts]
        is_new = starts_of_runs(evals, trains)
        # Of overlapping n-grams, each adds the words from its start to that of the next one.
        gains = lengths.astype(np.int64)
        gains[:-1] = np.where(is_new[1:], gains[:-1], np.minimum(gains[:-1], np.diff(firsts)))
        pairs = np.flatnonzero(is_new)
        words = np.add.reduceat(gains, pairs) if len(pairs) else gains
        return _best_of(evals[pairs].astype(np.int64), trains[pairs], words)


def summarize(index: EvaluationIndex, hits: Iterable[Hits], *, dirty_share: float) -> list[Overlap]:
    """The evaluation rows of which anything is copied, those with the highest coverage first.

    hits: of all batches, in any order and however cut; consumed one by one. A question that the
    template says in full, or that is empty, is judged by its answers; a row of which nothing
    counts is clean. Of training rows that copy equally much the first is named.
    """
    first_rows = np.full(len(index.hashes), NO_ROW)
    best_rows, best_words = np.full(index.num_rows, NO_ROW), np.zeros(index.num_rows, np.int64)
    for one in hits:
        first_rows[one.ngrams] = np.minimum(first_rows[one.ngrams], one.first_rows)
        row, words = best_rows[one.eval_rows], best_words[one.eval_rows]
        better = (one.question_words > words) | (
            (one.question_words == words) & (one.train_rows < row)
        )
        best_rows[one.eval_rows[better]] = one.train_rows[better]
        best_words[one.eval_rows[better]] = one.question_words[better]
    # A row whose n-grams all stand in many rows, or only in the answers, gets the first row of any.
    row_of_place = np.repeat(first_rows, np.diff(index.starts))
    any_rows = np.full(index.num_rows, NO_ROW)
    np.minimum.at(any_rows, index.word_rows[index.first_words], row_of_place)
    train_rows = np.where(best_rows < NO_ROW, best_rows, any_rows)
    copied = row_of_place < NO_ROW
    covered = cover_words(len(index.word_rows), index.first_words[copied], index.num_words[copied])
    question, has_question = _covered_share(index, covered, index.is_question)
    answer, _ = _covered_share(index, covered, ~index.is_question)
    coverage = np.where(has_question, question, answer)
    found = np.flatnonzero(train_rows < NO_ROW)
    return [
        Overlap(
            eval_row=int(row),
            train_row=int(train_rows[row]),
            coverage=float(coverage[row]),
            answer_coverage=float(answer[row]),
            is_dirty=bool(coverage[row] >= dirty_share),
        )
        for row in found[np.argsort(-coverage[found], kind="stable")]
    ]


def longest_shared_run(left: Sequence[str], right: Sequence[str]) -> SharedRun:
    """The longest run of words that stands in both rows, within one segment of each.

    left, right: the segments of a row. Of several longest runs the first of `left`. By bisection
    over the length and hashes of all runs of it, so that long texts take no quadratic time.
    """
    lists = list_words([*left, *right])
    rows = np.repeat(np.arange(2), (len(left), len(right)))
    words = split_words([*left, *right], rows=rows, is_question=rows >= 0, num_rows=2)
    longest = int(np.diff(words.offsets).max(initial=0))
    shared, too_long, found = 0, longest + 1, 0
    while too_long - shared > 1:
        length = (shared + too_long) // 2
        ngrams = hash_ngrams(words, length)
        whole = ngrams.num_words == length
        is_left = whole & (rows[ngrams.segments] == 0)
        right_hashes = np.sort(ngrams.hashes[whole & ~is_left])
        both = np.flatnonzero(is_left)[is_in(ngrams.hashes[is_left], right_hashes)]
        if len(both):
            shared, found = length, int(ngrams.first_words[both[0]])
        else:
            too_long = length
    all_words = lists.explode(empty_as_null=False)
    return SharedRun(shared, " ".join(all_words[found : found + shared]))


def _counted_ngrams(
    words: Words, ngram: int, template: np.ndarray, template_ngram: int
) -> tuple[Words, Ngrams]:
    """The words outside the template, and the n-grams of them that count.

    A short segment's hash is that of all its words, the template's among them: what is left of it
    may be a single word, which stands in many rows.
    """
    counted = words
    if len(template):
        runs = hash_ngrams(words, template_ngram)
        in_template = is_in(runs.hashes, template)
        covered = cover_words(
            len(words.hashes), runs.first_words[in_template], runs.num_words[in_template]
        )
        counted = take_words(words, ~covered)
    ngrams = hash_ngrams(counted, ngram)
    short = ngrams.num_words < ngram
    hashes = ngrams.hashes
    hashes[short] = whole_segment_hashes(words)[ngrams.segments[short]]
    keep = ~short | words.is_question[ngrams.segments]
    return counted, Ngrams(*(values[keep] for values in ngrams))


class _Places(NamedTuple):
    """What `EvaluationIndex` holds of some rows, with their n-grams in reading order."""

    hashes: np.ndarray
    first_words: np.ndarray
    num_words: np.ndarray
    word_rows: np.ndarray
    is_question: np.ndarray
    counts: np.ndarray


def _places_of(words: Words, ngram: int, template: np.ndarray, template_ngram: int) -> _Places:
    counted, ngrams = _counted_ngrams(words, ngram, template, template_ngram)
    segments = np.repeat(np.arange(len(counted.rows)), np.diff(counted.offsets))
    return _Places(
        hashes=ngrams.hashes,
        first_words=ngrams.first_words.astype(np.int32),
        num_words=ngrams.num_words.astype(np.int32),
        word_rows=counted.rows[segments].astype(np.int32),
        is_question=counted.is_question[segments],
        counts=cover_words(len(counted.hashes), ngrams.first_words, ngrams.num_words),
    )


def _build_filter(hashes: np.ndarray) -> np.ndarray:
    """A bit for each value of the first bits of a hash, sixteen bits or more a hash."""
    num_bits = max(13, (16 * len(hashes)).bit_length())
    bits = hashes >> np.uint64(64 - num_bits)
    held = np.zeros(1 << (num_bits - 3), np.uint8)
    np.bitwise_or.at(
        held, bits >> np.uint64(3), np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8)
    )
    return held


def _may_hold(held: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Which hashes may be in the index; one in sixteen of the others passes at most: bool."""
    bits = hashes >> np.uint64(64 - 3 - (len(held).bit_length() - 1))
    in_byte = (bits & np.uint64(7)).astype(np.uint8)
    return np.asarray((held[bits >> np.uint64(3)] >> in_byte) & 1 == 1)


def _best_of(
    evals: np.ndarray, trains: np.ndarray, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pairs of each evaluation row the one with most words, then the first training row."""
    order = np.lexsort((trains, -words, evals))
    evals, trains, words = evals[order], trains[order], words[order]
    first = starts_of_runs(evals)
    return evals[first], trains[first], words[first]


def _covered_share(
    index: EvaluationIndex, covered: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each row the share of its counting words of one side that are copied; has it any."""
    rows = index.word_rows[index.counts & side]
    total = np.bincount(rows, minlength=index.num_rows)
    copied = np.bincount(index.word_rows[covered & side], minlength=index.num_rows)
    return copied / np.maximum(total, 1), total > 0
