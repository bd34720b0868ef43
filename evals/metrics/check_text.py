"""Checks of wording: what a text holds, how long it is, how it is laid out in lines.

Each takes the text of an answer, and what the question demands of it, and returns in words what is
wrong, or nothing. Words are runs of letters and digits with apostrophes and hyphens inside them;
where case does not matter, texts are compared casefolded.
"""

import re
import unicodedata
from collections.abc import Sequence

from evals.metrics.fences import unfenced

WORD = re.compile(r"\w+(?:['’\-]\w+)*")
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+")
BULLET = re.compile(r"\s*[-*•+]\s+")
NUMBERED = re.compile(r"\s*(\d+)[.)]\s+")
NUMBER = re.compile(r"(?<![\w.,])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
NAMED_RESULT = re.compile(r"####|\banswer\b[*_ ]*(?::|=|is\b)|\\boxed\{", re.IGNORECASE)
QUOTES = "\"'“”‘’„«»`"


def number(text: str, *, value: float, tolerance: float = 0.0) -> str:
    """The number that the text ends on: the first after the last `Answer:`, else the last one.

    "The answer is", GSM8K's `####` and TeX's `\\\\boxed` are read as `Answer:` is.

    Commas between groups of three digits are read as such; a currency sign or a unit may stand
    around the number. tolerance: how far off it may be.
    """
    marks = list(NAMED_RESULT.finditer(text))
    plain = re.sub(r"[*_$€£]", "", text)
    found = NUMBER.findall(plain)
    if marks:
        after = NUMBER.findall(re.sub(r"[*_$€£]", "", text[marks[-1].end() :]))
        found = after[:1] or found
    if not found:
        return "no number"
    last = float(found[-1].replace(",", "").replace("−", "-"))
    return "" if abs(last - value) <= tolerance else f"{found[-1]} instead of {value:g}"


def answer(text: str, *, accepted: Sequence[str], rejected: Sequence[str] = ()) -> str:
    """One of the accepted answers stands in the text, as whole words, and none of the rejected."""
    if not any(_count(text, one) for one in accepted):
        return f"no {' or '.join(accepted)}"
    return next((f"also {one}" for one in rejected if _count(text, one)), "")


def equals(text: str, *, text_expected: str, match_case: bool = True) -> str:
    """Exactly this text, but for white space, quotation marks and a code fence around it."""
    got, expected = _bare(text), _bare(text_expected)
    if not match_case:
        got, expected = got.casefold(), expected.casefold()
    return "" if got == expected else f"{_cut(got)} instead of {_cut(expected)}"


def contains(text: str, *, words: Sequence[str]) -> str:
    """Each of these words or phrases at least once."""
    return next((f"no {word!r}" for word in words if not _count(text, word)), "")


def avoids(text: str, *, words: Sequence[str]) -> str:
    """None of these words or phrases, and not nothing at all."""
    if not text.strip():
        return "empty"
    return next((f"{word!r} in it" for word in words if _count(text, word)), "")


def avoids_characters(text: str, *, characters: str) -> str:
    """None of these characters, in either case, and not nothing at all."""
    if not text.strip():
        return "empty"
    return next((f"{one!r} in it" for one in characters if one in text.casefold()), "")


def occurrences(text: str, *, word: str, exactly: int) -> str:
    """This word or phrase so many times."""
    return _bounded(_count(text, word), f"times {word!r}", exactly, None, None)


def in_order(text: str, *, words: Sequence[str]) -> str:
    """These words, each after the one before it."""
    place = 0
    for word in words:
        found = re.compile(_whole(word)).search(_folded(text), place)
        if not found:
            return f"no {word!r} after those before it"
        place = found.end()
    return ""


def starts_with(text: str, *, start: str) -> str:
    """The text begins with these words, case included; Markdown marks around them are passed by."""
    got = text.lstrip(QUOTES + "*_# \n\t")
    return "" if got.startswith(start) else f"starts with {_cut(got)}"


def ends_with(text: str, *, end: str) -> str:
    """The text ends on these words, case and punctuation included; closing quotes are passed by."""
    got = text.rstrip(QUOTES + "*_ \n\t")
    return "" if got.endswith(end) else f"ends on {got[-len(end) :]!r}"


def words(
    text: str,
    *,
    exactly: int | None = None,
    at_least: int | None = None,
    at_most: int | None = None,
) -> str:
    """So many words."""
    return _bounded(len(WORD.findall(text)), "words", exactly, at_least, at_most)


def sentences(
    text: str,
    *,
    exactly: int | None = None,
    at_least: int | None = None,
    at_most: int | None = None,
) -> str:
    """So many sentences: pieces between `.`, `!` or `?` before white space, each with a word."""
    pieces = [piece for piece in SENTENCE_END.split(text.strip()) if WORD.search(piece)]
    return _bounded(len(pieces), "sentences", exactly, at_least, at_most)


def lines(
    text: str,
    *,
    exactly: int | None = None,
    at_least: int | None = None,
    at_most: int | None = None,
) -> str:
    """So many lines that are not blank."""
    return _bounded(len(_lines(text)), "lines", exactly, at_least, at_most)


def paragraphs(text: str, *, exactly: int) -> str:
    """So many paragraphs, with blank lines between them."""
    found = [piece for piece in re.split(r"\n\s*\n", text) if piece.strip()]
    return _bounded(len(found), "paragraphs", exactly, None, None)


def bullets(text: str, *, exactly: int) -> str:
    """So many lines that begin with a bullet (`-`, `*`, `+` or `•`)."""
    found = [line for line in _lines(text) if BULLET.match(line)]
    return _bounded(len(found), "bullets", exactly, None, None)


def numbered(text: str, *, exactly: int) -> str:
    """Lines numbered from 1 to this, in order (`1.` or `1)`)."""
    found = [int(match[1]) for line in _lines(text) if (match := NUMBERED.match(line))]
    return "" if found == list(range(1, exactly + 1)) else f"numbered {found}, not 1 to {exactly}"


def each_line_starts(text: str, *, start: str) -> str:
    """Each line begins with these characters, case included."""
    wrong = [line for line in _lines(text) or [""] if not line.strip().startswith(start)]
    return f"a line starts otherwise: {_cut(wrong[0])}" if wrong else ""


def items(text: str, *, expected: Sequence[str]) -> str:
    """These items in this order, one a line or between commas; bullets and numbers passed by."""
    got = [_folded(item) for item in _items(text)]
    return "" if got == [_folded(item) for item in expected] else f"{_cut(', '.join(got))}"


def num_items(text: str, *, exactly: int, accepted: Sequence[str] = ()) -> str:
    """So many different items between commas or one a line, all of them among the accepted ones."""
    got = [_folded(item) for item in _items(text)]
    known = {_folded(one) for one in accepted}
    strange = [item for item in got if known and item not in known]
    if strange:
        return f"{_cut(strange[0])} is none of those that count"
    return _bounded(len(set(got)), "different items", exactly, None, None)


def upper_case(text: str) -> str:
    """All letters are capitals, and there are some."""
    return "" if text.isupper() else "not all in capitals"


def lower_case(text: str) -> str:
    """No letter is a capital, and there are some."""
    return "" if text.islower() else "not all in small letters"


def pattern(text: str, *, regex: str) -> str:
    """The whole text, without white space around it, has this form (Python's `re`)."""
    got = _bare(text)
    return "" if re.fullmatch(regex, got, re.DOTALL) else f"{_cut(got)} has another form"


def _bare(text: str) -> str:
    return unicodedata.normalize("NFC", unfenced(text)).strip(QUOTES + " \n\t")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("’", "'").casefold()


def _whole(words: str) -> str:
    return rf"(?<!\w){re.escape(_folded(words))}(?!\w)"


def _count(text: str, words: str) -> int:
    return len(re.findall(_whole(words), _folded(text)))


def _lines(text: str) -> list[str]:
    return [line for line in unfenced(text).splitlines() if line.strip()]


def _items(text: str) -> list[str]:
    found = _lines(text)
    parts = found[0].split(",") if len(found) == 1 else found
    bare = (NUMBERED.sub("", BULLET.sub("", part, count=1), count=1) for part in parts)
    return [item for part in bare if (item := part.strip(QUOTES + "*_ .,;"))]


def _bounded(
    count: int, noun: str, exactly: int | None, at_least: int | None, at_most: int | None
) -> str:
    if exactly is not None and count != exactly:
        return f"{count} {noun}, not {exactly}"
    if at_least is not None and count < at_least:
        return f"{count} {noun}, fewer than {at_least}"
    if at_most is not None and count > at_most:
        return f"{count} {noun}, more than {at_most}"
    return "" if count else f"no {noun}"


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
