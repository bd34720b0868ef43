"""Near-duplicate clusters against comparing all pairs, and in time that grows with the rows."""

import math
import os
import random
import re
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix, triu

from data.copies.near_duplicates import (
    MAX_PERMUTATIONS,
    SKETCH_SIZE,
    Banding,
    SignatureStore,
    choose_banding,
    sign_rows,
)
from data.copies.word_ngrams import Words, split_words, template_ngrams

Pair = tuple[int, int]


def words_of(texts: Sequence[str]) -> Words:
    rows = np.arange(len(texts))
    return split_words(texts, rows=rows, is_question=rows >= 0, num_rows=len(texts))


def cluster(
    folder: Path,
    texts: Sequence[str],
    *,
    ngram: int = 3,
    threshold: float = 0.7,
    template: np.ndarray | None = None,
    batch_rows: int = 5000,
) -> list[int]:
    with SignatureStore(folder, threshold=threshold) as store:
        for start in range(0, len(texts), batch_rows):
            words = words_of(texts[start : start + batch_rows])
            store.append(sign_rows(words, ngram=ngram, threshold=threshold, template=template))
        labels: list[int] = store.cluster().tolist()
    return labels


def ngram_sets(texts: Sequence[str], ngram: int) -> list[frozenset[str]]:
    sets = []
    for text in texts:
        words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())
        starts = range(len(words) - ngram + 1) if len(words) >= ngram else range(bool(words))
        sets.append(frozenset(" ".join(words[start : start + ngram]) for start in starts))
    return sets


def similar_pairs(sets: list[frozenset[str]], *, percent: int) -> set[Pair]:
    """All pairs of a Jaccard similarity of at least `percent` hundredths, each compared."""
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(ngram, len(numbers)) for ngrams in sets for ngram in ngrams]
    sizes = np.array([len(ngrams) for ngrams in sets])
    rows = np.repeat(np.arange(len(sets)), sizes)
    held = coo_matrix((np.ones(len(rows), np.int32), (rows, columns))).tocsr()
    shared = triu(held @ held.T, k=1).tocoo()
    union = sizes[shared.row] + sizes[shared.col] - shared.data
    similar = 100 * shared.data >= percent * union
    return set(zip(shared.row[similar].tolist(), shared.col[similar].tolist(), strict=True))


def components(num_rows: int, pairs: set[Pair]) -> list[int]:
    labels = list(range(num_rows))

    def root(row: int) -> int:
        while labels[row] != row:
            row = labels[row]
        return row

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        labels[high] = low
    return [root(row) for row in range(num_rows)]


def edited_texts(num_texts: int, *, seed: int) -> list[str]:
    """Texts of 1 to 40 words, most of them an earlier one with a few words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(60)]
    texts = [" ".join(rng.choices(vocabulary, k=20))]
    while len(texts) < num_texts:
        words = rng.choice(texts).split()
        if rng.random() < 0.3:
            words = rng.choices(vocabulary, k=rng.randint(1, 40))
        for _ in range(rng.randint(0, 4)):
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("ngram", [1, 2, 3])
@pytest.mark.parametrize("percent", [50, 70, 85, 100])
def test_clusters_are_those_of_comparing_all_pairs(
    tmp_path: Path, ngram: int, percent: int
) -> None:
    texts = edited_texts(2000, seed=10 * ngram + percent)
    sets = ngram_sets(texts, ngram)
    labels = cluster(tmp_path, texts, ngram=ngram, threshold=percent / 100)
    pairs = similar_pairs(sets, percent=percent)
    expected = components(len(texts), pairs)
    assert 10 < len(set(expected)) < len(texts) - 10  # neither trivial answer
    # Precision: nothing is joined that comparing all pairs would leave apart.
    assert len(set(zip(labels, expected, strict=True))) == len(set(labels))
    # Recall, as the choice of bands promises it.
    num_joined = sum(labels[left] == labels[right] for left, right in pairs)
    assert num_joined >= 0.98 * len(pairs)
    alike = similar_pairs(sets, percent=min(100, percent + 10))
    assert sum(labels[left] != labels[right] for left, right in alike) <= 0.001 * len(alike)
    assert all(labels[label] == label <= row for row, label in enumerate(labels))


def pair_of_similarity(shared: int, own: int, number: int) -> list[str]:
    """Two texts of words of their own, of which `shared` are in both and `own` in one only."""
    both = [f"s{number}x{word}" for word in range(shared)]
    return [" ".join([*both, *(f"{side}{number}x{word}" for word in range(own))]) for side in "lr"]


@pytest.mark.parametrize(("shared", "own"), [(30, 15), (28, 6), (36, 2)])  # 0.5, 0.7, 0.9
def test_rows_meet_in_a_band_as_often_as_the_formula_says(shared: int, own: int) -> None:
    similarity = shared / (shared + 2 * own)
    num_pairs = 3000
    texts = [text for n in range(num_pairs) for text in pair_of_similarity(shared, own, n)]
    signatures = sign_rows(words_of(texts), ngram=1, threshold=0.7)
    banding = choose_banding(0.7)
    met = signatures.band_keys[::2] == signatures.band_keys[1::2]

    def within_four_deviations(found: float, chance: float, number: int) -> bool:
        return abs(found - chance) < 4 * math.sqrt(chance * (1 - chance) / number) + 1e-9

    in_one_band = similarity**banding.band_size
    assert within_four_deviations(met.mean(), in_one_band, met.size)
    assert within_four_deviations(met.any(1).mean(), banding.recall(similarity), num_pairs)


def test_bands_are_chosen_by_the_recall_that_they_give() -> None:
    # 1 − (1 − 0.7⁵)²² = 0.9825 and 1 − (1 − 0.8⁵)²² = 0.9998; bands of six need 192 values.
    assert choose_banding(0.7) == Banding(num_bands=22, band_size=5)
    assert choose_banding(0.7).recall(0.7) == pytest.approx(0.98255, abs=1e-5)
    for percent in range(3, 101):
        threshold = percent / 100
        banding = choose_banding(threshold)
        assert banding.recall(threshold) >= 0.97
        assert banding.recall(min(1.0, threshold + 0.1)) >= 0.999
        assert banding.num_bands * banding.band_size <= MAX_PERMUTATIONS
    for threshold in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            choose_banding(threshold)


def test_a_pair_of_exactly_seven_in_ten_is_joined(tmp_path: Path) -> None:
    texts = []
    for number in range(500):
        shared = " ".join(f"s{number}x{word}" for word in range(7))
        texts += [f"{shared} a{number} b{number}", f"{shared} c{number}"]  # 7 words of 10
    labels = cluster(tmp_path, texts, ngram=1, threshold=0.7)
    assert sum(left == right for left, right in zip(labels[::2], labels[1::2], strict=True)) >= 480
    assert cluster(tmp_path, texts, ngram=1, threshold=0.7001) == list(range(1000))


def test_clusters_are_connected_components_named_by_their_first_row(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(60)]
    chain = ["x y z", *(" ".join(words[start : start + 40]) for start in (8, 4, 0, 12))]
    assert cluster(tmp_path, chain, ngram=1, threshold=0.8) == [0, 1, 1, 1, 1]
    # The ends of the chain are not near duplicates of each other.
    assert cluster(tmp_path, chain[3:], ngram=1, threshold=0.8) == [0, 1]


def partition(labels: list[int], order: Sequence[int]) -> set[frozenset[int]]:
    members: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        members.setdefault(label, []).append(order[place])
    return {frozenset(rows) for rows in members.values()}


def test_neither_batches_nor_the_order_of_the_rows_matter(tmp_path: Path) -> None:
    # Buckets far larger than the window, whose pairs are not all compared.
    rng = random.Random(5)
    base = [f"b{number}" for number in range(30)]
    texts = []
    for _ in range(3000):
        words = base.copy()
        for place in rng.sample(range(30), rng.choice([1, 2, 3])):
            words[place] = f"v{rng.randrange(100)}"
        texts.append(" ".join(words))
    labels = cluster(tmp_path, texts)
    assert 20 < len(set(labels)) < 2900
    for batch_rows in (1000, 7, 3000):
        assert cluster(tmp_path, texts, batch_rows=batch_rows) == labels
    for seed in range(3):
        order = random.Random(seed).sample(range(3000), 3000)
        shuffled = cluster(tmp_path, [texts[row] for row in order])
        assert partition(shuffled, order) == partition(labels, range(3000))


@pytest.mark.filterwarnings("error")
def test_rows_without_words_are_like_no_other(tmp_path: Path) -> None:
    assert cluster(tmp_path, []) == []
    assert cluster(tmp_path, ["", "!"]) == [0, 1]
    assert cluster(tmp_path, ["", "one", "one two", "ONE.", "!", ""]) == [0, 1, 2, 1, 4, 5]


def test_only_what_is_asked_counts_and_turns_do_not_run_together(tmp_path: Path) -> None:
    texts = ["a b c d", "yes", "a b c d", "no way at all", "a b", "c d", "a b c d"]
    words = split_words(
        texts,
        rows=np.array([0, 0, 1, 1, 2, 2, 3]),
        is_question=np.array([True, False, True, False, True, True, True]),
        num_rows=4,
    )
    with SignatureStore(tmp_path, threshold=0.7) as store:
        store.append(sign_rows(words, ngram=3, threshold=0.7))
        assert store.cluster().tolist() == [0, 0, 2, 0]


def test_a_template_makes_no_rows_alike(tmp_path: Path) -> None:
    texts = [
        f"Diagnosis: illness{row}. To which chapter of the ICD-10-CM does this diagnosis belong, "
        "as a coder in the United States would put it?"
        for row in range(300)
    ]
    texts += ["The same thing asked once more"] * 2
    template = template_ngrams(words_of(texts), ngram=3, more_than_rows=20)
    assert set(cluster(tmp_path, texts)) == {0, 300}
    assert cluster(tmp_path, texts, template=template) == [*range(301), 300]


def test_rows_that_say_the_template_alone_are_like_no_other(tmp_path: Path) -> None:
    texts = ["Describe the picture"] * 40
    template = template_ngrams(words_of(texts), ngram=3, more_than_rows=20)
    assert set(cluster(tmp_path, texts)) == {0}
    assert cluster(tmp_path, texts, template=template) == list(range(40))


@pytest.mark.parametrize(("changed", "alike"), [(0.05, True), (0.15, False)])
def test_long_texts_are_compared_by_a_sample_of_their_ngrams(
    tmp_path: Path, changed: float, alike: bool
) -> None:
    """A word changed changes three 3-grams: similarities of 0.75 and 0.44, ± 0.02."""
    rng = random.Random(1)
    texts = []
    for number in range(20):
        words = [f"t{number}w{rng.randrange(3000)}" for _ in range(20 * SKETCH_SIZE)]
        other = [f"new{n}" if rng.random() < changed else word for n, word in enumerate(words)]
        texts += [" ".join(words), " ".join(other)]
    labels = cluster(tmp_path, texts)
    pairs = zip(labels[::2], labels[1::2], strict=True)
    assert [left == right for left, right in pairs] == [alike] * 20
    assert len(set(labels)) == (20 if alike else 40)


def test_a_long_text_and_part_of_it_are_compared_on_what_is_known_of_both(tmp_path: Path) -> None:
    """Of the longer one 512 of its 680 n-grams are known, and all 510 of the shorter: 0.75."""
    texts = []
    for number in range(20):
        words = [f"t{number}w{word}" for word in range(682)]
        texts += [" ".join(words), " ".join(words[:512]), " ".join(words[:400])]
    labels = cluster(tmp_path, texts)
    joined = [(a == b, b == c) for a, b, c in zip(*(labels[n::3] for n in range(3)), strict=True)]
    assert joined == [(True, True)] * 20
    apart = cluster(tmp_path, [text for n, text in enumerate(texts) if n % 3 != 1])
    assert apart == list(range(40))


def test_a_hundred_thousand_alike_rows_are_one_cluster_in_linear_time(tmp_path: Path) -> None:
    rng = random.Random(2)
    base = [f"b{number}" for number in range(60)]
    texts = []
    for row in range(100_000):
        words = base.copy()
        words[rng.randrange(60)] = f"v{row}"
        texts.append(" ".join(words))
    started = time.perf_counter()
    assert set(cluster(tmp_path, texts)) == {0}
    assert time.perf_counter() - started < 60  # 5,000 million pairs take hours


def test_large_buckets_of_rows_that_are_not_alike_take_linear_time(tmp_path: Path) -> None:
    header = " ".join(f"header{word}" for word in range(60))
    texts = [
        f"{header} {' '.join(f'w{row}x{word}' for word in range(40))}" for row in range(20_000)
    ]
    started = time.perf_counter()
    assert cluster(tmp_path, texts) == list(range(20_000))
    assert time.perf_counter() - started < 60  # 200 million pairs take longer


@pytest.mark.corpora
@pytest.mark.parametrize(("ngram", "percent"), [(3, 70), (2, 85), (3, 50)])
def test_real_near_duplicates_are_found(tmp_path: Path, ngram: int, percent: int) -> None:
    folder = os.environ.get("TUNERY_CORPORA")
    if not folder:
        pytest.skip("TUNERY_CORPORA is not set")
    texts = (Path(folder) / "nl2bash.nl").read_text(errors="replace").splitlines()
    sets = ngram_sets(texts, ngram)
    pairs = similar_pairs(sets, percent=percent)
    labels = cluster(tmp_path, texts, ngram=ngram, threshold=percent / 100)
    expected = components(len(texts), pairs)
    assert len(pairs) > 1000
    assert len(set(zip(labels, expected, strict=True))) == len(set(labels))
    assert sum(labels[left] == labels[right] for left, right in pairs) >= 0.98 * len(pairs)
    assert len(set(labels)) <= 1.002 * len(set(expected))
