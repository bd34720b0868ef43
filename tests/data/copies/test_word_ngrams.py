"""Words and n-grams against plain Python, and hashes that stay the same for good."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.copies.word_ngrams import (
    BLOCK_WORDS,
    Words,
    cover_words,
    cut_words,
    hash_ngrams,
    is_in,
    join_words,
    list_words,
    load_words,
    ragged_ranges,
    save_words,
    sorted_unique,
    split_words,
    starts_of_runs,
    take_questions,
    take_rows,
    take_words,
    template_ngrams,
    whole_segment_hashes,
)

Segments = list[tuple[int, bool, str]]
SEGMENTS: Segments = [
    (0, True, "one two three four five"),
    (0, False, "two three"),
    (2, True, ""),
    (2, True, "six"),
    (2, False, "one two three"),
    (3, True, "?!"),
]


def words_of(segments: Segments, num_rows: int | None = None) -> Words:
    rows = np.array([row for row, _, _ in segments], int)
    return split_words(
        [text for _, _, text in segments],
        rows=rows,
        is_question=np.array([asked for _, asked, _ in segments], bool),
        num_rows=int(rows.max(initial=-1)) + 1 if num_rows is None else num_rows,
    )


def one_row_each(texts: list[str]) -> Words:
    return words_of([(row, True, text) for row, text in enumerate(texts)])


def as_lists(words: Words) -> list[tuple[int, bool, list[int]]]:
    return [
        (int(row), bool(asked), words.hashes[start:end].tolist())
        for row, asked, (start, end) in zip(
            words.rows, words.is_question, pairwise(words.offsets), strict=True
        )
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The MIT license, v2.0 (see https://x.y/z_1)", "the mit license v2 0 see https x y z_1"),
        ("ＦＵＬＬ width, e\u0301tude, \ufb01nd", "full width étude find"),
        ("Größe ΣΟΦΟΣ Ёлка", "größe σοφος ёлка"),
        ("何の病気ですか。ICD-10で", "何 の 病 気 で す か icd 10 で"),
        ("ไทย text", "ไ ท ย text"),
        ("한국어 문장", "한국어 문장"),
        ("... 😀 \n", ""),
    ],
)
def test_words_are_runs_of_letters_without_case(text: str, words: str) -> None:
    assert list_words([text]).to_list() == [words.split()]


def test_hashes_are_fixed_for_good() -> None:
    """Pinned: if they change, clusters may, and with them the sides of rows."""
    words = one_row_each(["hello wörld hello", "何"])
    assert words.hashes.tolist() == [2603551374, 2468837232, 2603551374, 1974564439]
    assert hash_ngrams(words, 2).hashes.tolist() == [
        58947667013891566,
        12876776916681857098,
        17630948613964152980,
    ]


def test_words_have_equal_hashes_exactly_where_they_are_equal() -> None:
    rng = random.Random(0)
    # Longer than a block, words of one letter to a thousand, many of them anagrams.
    vocabulary = [
        "".join(rng.choices("abé何1_", k=rng.choice([1, 2, 3, 9, 1000]))) for _ in range(300)
    ]
    texts = [" ".join(rng.choices(vocabulary, k=7)) for _ in range(BLOCK_WORDS // 5)]
    hashes = one_row_each(texts).hashes.tolist()
    strings = list_words(texts).explode(empty_as_null=False).to_list()
    assert len(hashes) == len(strings) > BLOCK_WORDS
    assert (
        len(set(zip(hashes, strings, strict=True))) == len(set(hashes)) == len(set(strings)) > 100
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_a_text_has_the_same_words_in_every_batch(texts: list[str]) -> None:
    together = as_lists(one_row_each(texts))
    alone = [as_lists(one_row_each([text]))[0] for text in texts]
    assert [words for _, _, words in together] == [words for _, _, words in alone]
    arrow = pa.array(["skipped", *texts], pa.string()).slice(1)
    rows = np.arange(len(texts))
    same = split_words(arrow, rows=rows, is_question=rows >= 0, num_rows=len(texts))
    assert as_lists(same) == together


def test_texts_that_cannot_be_read_are_refused() -> None:
    rows, asked = np.array([0, 0]), np.array([True, True])
    with pytest.raises(UnicodeEncodeError):
        split_words(["fine", "\ud800"], rows=rows, is_question=asked, num_rows=1)
    with pytest.raises(ValueError, match="missing"):
        split_words(pa.array(["fine", None]), rows=rows, is_question=asked, num_rows=1)
    with pytest.raises(ValueError, match="one entry a segment"):
        split_words(["fine"], rows=rows, is_question=asked, num_rows=1)
    for wrong in ([1, 0], [0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="never fall"):
            split_words(["a", "b"], rows=np.array(wrong), is_question=asked, num_rows=2)


def test_parts_of_a_batch_are_what_lists_would_give() -> None:
    words = words_of(SEGMENTS, num_rows=5)
    lists = as_lists(words)
    assert as_lists(take_questions(words)) == [segment for segment in lists if segment[1]]
    kept = take_rows(words, np.array([False, True, True, False, True]))
    assert kept.num_rows == 3
    assert as_lists(kept) == [(1, asked, part) for row, asked, part in lists if row == 2]
    joined = join_words([words, kept, words_of([], num_rows=2), words])
    assert joined.num_rows == 5 + 3 + 2 + 5
    assert as_lists(joined) == [
        *lists,
        *((row + 5, asked, part) for row, asked, part in as_lists(kept)),
        *((row + 10, asked, part) for row, asked, part in lists),
    ]
    odd = words.hashes % 2 == 1
    assert 0 < odd.sum() < len(odd)
    assert as_lists(take_words(words, odd)) == [
        (row, asked, [word for word in part if word % 2]) for row, asked, part in lists
    ]


@pytest.mark.parametrize("max_words", [1, 5, 6, 100])
def test_a_batch_is_cut_between_segments(max_words: int) -> None:
    words = words_of(SEGMENTS, num_rows=5)
    parts = list(cut_words(words, max_words=max_words))
    assert [segment for part in parts for segment in as_lists(part)] == as_lists(words)
    assert {part.num_rows for part in parts} == {5}
    assert all(len(part.rows) == 1 or len(part.hashes) <= max_words for part in parts)
    assert len(parts) == {1: 5, 5: 3, 6: 2, 100: 1}[max_words]
    assert [as_lists(part) for part in cut_words(words_of([]), max_words=9)] == [[]]


def test_words_are_kept_on_disk(tmp_path: Path) -> None:
    words = words_of(SEGMENTS, num_rows=5)
    save_words(words, tmp_path / "words")
    loaded = load_words(tmp_path / "words")
    assert as_lists(loaded) == as_lists(words)
    assert loaded.num_rows == 5
    assert loaded.hashes.dtype == np.uint32


def expected_ngrams(
    segments: list[list[int]], ngram: int
) -> list[tuple[int, int, tuple[int, ...]]]:
    """(segment, number of its first word, words) of every n-gram."""
    found, before = [], 0
    for number, words in enumerate(segments):
        starts = range(len(words) - ngram + 1) if len(words) >= ngram else range(bool(words))
        found += [(number, before + n, tuple(words[n : n + ngram])) for n in starts]
        before += len(words)
    return found


@pytest.mark.parametrize("ngram", [1, 2, 3, 5, 13, 400])
def test_ngrams_are_those_of_plain_python(ngram: int) -> None:
    rng = random.Random(ngram)
    # Three words in all: many n-grams differ in their order only.
    texts = [" ".join(rng.choices("abc", k=rng.choice([0, 1, 2, 3, 40]))) for _ in range(300)]
    words = one_row_each(["", *texts, "", ""])
    ngrams = hash_ngrams(words, ngram)
    expected = expected_ngrams([part for _, _, part in as_lists(words)], ngram)
    assert ngrams.segments.tolist() == [segment for segment, _, _ in expected]
    assert ngrams.first_words.tolist() == [first for _, first, _ in expected]
    assert ngrams.num_words.tolist() == [len(run) for _, _, run in expected]
    runs = [run for _, _, run in expected]
    pairs = set(zip(ngrams.hashes.tolist(), runs, strict=True))
    assert len(pairs) == len(set(runs)) == len({hash for hash, _ in pairs}) > 2


def test_a_short_segment_is_one_ngram_and_none_crosses_a_border() -> None:
    ngrams = hash_ngrams(words_of(SEGMENTS), 3)
    assert ngrams.segments.tolist() == [0, 0, 0, 1, 3, 4]
    assert ngrams.num_words.tolist() == [3, 3, 3, 2, 1, 3]
    assert ngrams.hashes[0] == ngrams.hashes[-1]
    assert len(hash_ngrams(words_of([]), 3).hashes) == 0
    with pytest.raises(ValueError, match="at least one word"):
        hash_ngrams(words_of(SEGMENTS), 0)


def test_a_whole_segment_has_the_hash_of_its_one_ngram() -> None:
    words = words_of(SEGMENTS)
    ngrams = hash_ngrams(words, 99)
    whole = whole_segment_hashes(words)
    assert len(whole) == len(SEGMENTS)
    assert whole[ngrams.segments].tolist() == ngrams.hashes.tolist()
    assert ngrams.segments.tolist() == [0, 1, 3, 4]


def test_a_template_is_what_most_rows_say() -> None:
    texts = [f"which chapter does illness{row} belong to" for row in range(6)]
    texts += [f"entirely other words number {row}" for row in range(5)]
    words = one_row_each(texts)
    opening = hash_ngrams(one_row_each(["which chapter does"]), 3).hashes.tolist()
    assert template_ngrams(words, ngram=3, more_than_rows=5).tolist() == opening  # 6 rows of 11
    assert template_ngrams(words, ngram=3, more_than_rows=6).tolist() == []
    even = one_row_each([*texts, "a twelfth row"])
    assert template_ngrams(even, ngram=3, more_than_rows=5).tolist() == []  # 6 of 12 are not most


def test_an_ngram_that_a_row_repeats_counts_once() -> None:
    words = words_of([(0, True, "x y z x y z"), (0, False, "x y z"), (1, True, "a")], num_rows=3)
    assert template_ngrams(words, ngram=3, more_than_rows=1).tolist() == []


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_looking_up_is_what_a_set_would_do(values: list[int], others: list[int]) -> None:
    distinct = sorted_unique(np.array(others, np.uint64))
    assert distinct.tolist() == sorted(set(others))
    found = is_in(np.array(values, np.uint64), distinct)
    assert found.tolist() == [value in others for value in values]


def test_runs_start_where_any_column_differs() -> None:
    left, right = np.array([1, 1, 1, 2, 2]), np.array([7, 7, 8, 8, 8])
    assert starts_of_runs(left, right).tolist() == [True, False, True, True, False]
    assert starts_of_runs(left[:0]).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=8))
def test_runs_cover_the_words_that_counting_them_would_give(runs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(runs, int).reshape(-1, 2).T
    numbers = [start + n for start, length in runs for n in range(length)]
    assert ragged_ranges(starts, lengths).tolist() == numbers
    assert np.flatnonzero(cover_words(15, starts, lengths)).tolist() == sorted(set(numbers))
