"""The hashed words of a bucket's rows, kept beside it, and what is made of them in any process."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data.copies.contamination import EvaluationIndex, Hits
from data.copies.near_duplicates import Signatures, sign_rows
from data.copies.word_ngrams import load_words
from data.steps.spool import Spool


def words_file(spool: Spool, bucket: int) -> Path:
    """Where the words of a bucket's rows lie."""
    return spool.folder / f"{bucket:02d}.words.npz"


def sign_bucket(
    spool: Spool, bucket: int, *, ngram: int, threshold: float, template: np.ndarray
) -> Signatures:
    """The signatures of a bucket's rows, as `sign_rows` makes them."""
    words = load_words(words_file(spool, bucket))
    return sign_rows(words, ngram=ngram, threshold=threshold, template=template)


def scan_bucket(spool: Spool, evaluation: Path, part: tuple[int, np.ndarray]) -> Hits:
    """What a bucket has in common with the evaluation rows: `EvaluationIndex.scan`.

    evaluation: folder of the index, of another name in each preparation: a process keeps the last
    one loaded; part: the bucket, and for each of its rows its number, negative where it is not
    trained on.
    """
    bucket, row_numbers = part
    index = _load_evaluation(evaluation)
    return index.scan(load_words(words_file(spool, bucket)), row_numbers)


@lru_cache(maxsize=1)
def _load_evaluation(folder: Path) -> EvaluationIndex:
    return EvaluationIndex.load(folder)
