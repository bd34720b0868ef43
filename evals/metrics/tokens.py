"""How much of the expected words an answer holds: SQuAD's token F1, and ROUGE-L."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from evals.metrics.score import Score
from evals.metrics.text import text_metric

ARTICLES = frozenset({"a", "an", "the"})
WORD = re.compile(r"\S+")
# Scripts that put no white space between words; each of their letters is taken for a word.
UNSPACED = re.compile(
    "([\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


class _ByCategory(dict[int, str | int]):
    """A table for `str.translate`: a letter's replacement by its Unicode category."""

    def __init__(self, dropped: str, replacement: str) -> None:
        self.dropped, self.replacement = dropped, replacement

    def __missing__(self, code: int) -> str | int:
        drop = unicodedata.category(chr(code))[0] in self.dropped
        self[code] = self.replacement if drop else code
        return self[code]


_NO_PUNCTUATION = _ByCategory("P", "")
_NO_PUNCTUATION.update(dict.fromkeys(map(ord, string.punctuation), ""))
_LETTERS_AND_DIGITS = _ByCategory("CPSZ", " ")


def squad_tokens(text: str) -> list[str]:
    """Words after SQuAD's normalization: lower case, no punctuation, no English articles.

    Source: SQuAD 2.0's `evaluate-v2.0.py`; as in MLQA's `mlqa_evaluation_v1.py` punctuation is
    Unicode's (categories P*), beside ASCII's, and as there letters of scripts without spaces are
    words of their own.
    """
    plain = unicodedata.normalize("NFC", text).lower().translate(_NO_PUNCTUATION)
    return [word for word in _split(plain) if word not in ARTICLES]


def rouge_tokens(text: str) -> list[str]:
    """Words as ROUGE takes them: lower case, split at all that is neither letter nor digit.

    Without stemming, as rouge-score has it by default; but that library knows ASCII alone, so that
    an answer in Greek scores 0 against itself. Here letters and marks of every script count.
    """
    return _split(unicodedata.normalize("NFC", text).lower().translate(_LETTERS_AND_DIGITS))


def token_f1(answer: Sequence[str], expected: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words as multisets; 1 where both have none."""
    if not answer or not expected:
        return float(not answer and not expected)
    common = (Counter(answer) & Counter(expected)).total()
    return 2 * common / (len(answer) + len(expected))


def rouge_l(answer: Sequence[str], expected: Sequence[str]) -> float:
    """ROUGE-L's F-measure (Lin 2004, with beta 1): of the longest common subsequence of words.

    1 where both have no words, as `token_f1` has it (rouge-score says 0).
    """
    if not answer or not expected:
        return float(not answer and not expected)
    common = LCSseq.similarity(answer, expected)
    return 2 * common / (len(answer) + len(expected))


def judge_token_f1(answer: str, expected: str) -> Score:
    """`token_f1` of the two texts; label: the answer's words as compared."""
    words = squad_tokens(answer)
    return Score(token_f1(words, squad_tokens(expected)), label=" ".join(words))


def judge_rouge_l(answer: str, expected: str) -> Score:
    """`rouge_l` of the two texts; label: the answer's words as compared."""
    words = rouge_tokens(answer)
    return Score(rouge_l(words, rouge_tokens(expected)), label=" ".join(words))


def _split(text: str) -> list[str]:
    return WORD.findall(UNSPACED.sub(r" \1 ", text))


score_token_f1 = text_metric(judge_token_f1)
score_rouge_l = text_metric(judge_rouge_l)
