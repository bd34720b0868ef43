"""In which words two texts differ: what reports and the workbench mark in a pair of answers."""

import difflib
import re
from typing import NamedTuple

# difflib's time grows with the square of it.
MAX_COMPARED_WORDS = 800
# Below this share of common words nearly all would be marked, which tells nothing.
MIN_ALIKE = 0.25
# A word or sign with the white space after it, which is shown but not compared.
WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")


class Piece(NamedTuple):
    """Part of a text; marked: the other one does not have it."""

    text: str
    marked: bool


def compare_words(a: str, b: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, marked where the other does not have the words.

    Texts that are very long, or have hardly a word in common, come back unmarked.
    """
    words, others = WORD.findall(a), WORD.findall(b)
    plain = ([Piece(a, False)], [Piece(b, False)])
    if not words or not others or max(len(words), len(others)) > MAX_COMPARED_WORDS:
        return plain
    matcher = difflib.SequenceMatcher(
        None, [word.strip() for word in words], [word.strip() for word in others], autojunk=False
    )
    if matcher.ratio() < MIN_ALIKE:
        return plain
    before: list[Piece] = []
    after: list[Piece] = []
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        before.append(Piece("".join(words[start:end]), kind != "equal"))
        after.append(Piece("".join(others[other_start:other_end]), kind != "equal"))
    return [piece for piece in before if piece.text], [piece for piece in after if piece.text]
