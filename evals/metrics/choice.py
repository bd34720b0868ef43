"""Multiple choice: which letter an answer chooses, as chat models put it, without guessing."""

import re
import unicodedata
from collections.abc import Mapping

from data.conversation import text_of
from evals.metrics.score import Reply, Score
from evals.metrics.text import normalize_answer
from evals.task import Question

MARKUP = str.maketrans("", "", '*_`#"“”„$\u200b\u200c\u200d\ufeff')
BOXED = re.compile(r"\\(?:boxed|text(?:bf)?|math(?:rm|bf))\{ ?(?:\\text\{)?([^{}]{0,99})\}{1,2}")
QUOTED_LETTER = re.compile(r"['‘]([A-Za-z])['’]")
OFFER = re.compile(r"^[ \t]*\(?([A-Z])[).:][ \t]+(\S.*)$", re.MULTILINE)
LETTERED = re.compile(r"[(\[]?([A-Za-z])[)\].:]* (.+)", re.DOTALL)

# Patterns see text whose white space is folded: single blanks, single line breaks.
_NOT_JUDGED = r"(?! (?:is|are|was|were|isn['’]t|can|cannot|would|does|not)\b)"
# A letter that is chosen, and neither the article nor a part of a name: in brackets, or closed by
# punctuation, by the line's end or by a reason.
_LETTER = (
    rf"(?:[(\[]([A-Za-z])[)\]](?!\w){_NOT_JUDGED}|([A-Za-z])(?:\)(?!\w){_NOT_JUDGED}"
    r"|(?= ?(?:[.,;:!?}\]](?!\w)|\n|\Z| [-–—] | ?[–—]| ?because\b| ?since\b))))"
)
# Two letters in a row are a list: "A, B", "(A) and (C)", "A) B)".
_LISTED = re.compile(
    r"[)\].:]{0,2}(?: ?(?:[,/&+]|\b(?:and|or)\b) ?(?:and |or )?[(\[]?"
    r"(?:[A-Z](?![\w'’])|[a-z](?= ?(?:[).,;\]]|\n|\Z)))"
    r"|;? ?[(\[]?[A-Za-z](?= ?(?:[).,:;\]]|\n|\Z)))"
)
LEAD = re.compile(rf"^(?:[-•>+] )?(?:(?:option|choice) )?{_LETTER}", re.MULTILINE | re.I)
STATED = re.compile(
    r"\b(?:answer|(?:correct|right|best|final|my) (?:option|choice)"
    r"|choose|chose|select|pick|go with)"
    r"(?:\s(?:is|was|would be|should be|must be))?\s?[:=]?\s?"
    r"(?:(?:therefore|thus|clearly|definitely|likely|probably|most likely) )?"
    rf"(?:(?:option|choice|letter|answer) )?{_LETTER}",
    re.I,
)
CALLED_RIGHT = re.compile(
    r"(?:^|[.!?:;,] |[(\[]|\b(?i:option|choice|answer|letter|so|thus|therefore|hence) [(\[]?)"
    r"([A-Z])[)\].]? is (?:clearly |definitely )?(?:the )?(?:most |single )?"
    r"(?:correct|right|best|answer|likely|appropriate|accurate)\b",
    re.MULTILINE,
)
NO_SINGLE = ""


def offered_options(question: Question) -> dict[str, str]:
    """The options' texts by their letters, as the last turn of the user lists them.

    They stand a line each, `A) text`, `A. text` or `(A) text`, in the order of the alphabet from A;
    of several such lists the last one counts. Empty where there is none.
    """
    asked = [text_of(turn) for turn in question.messages if turn["role"] == "user"]
    options: dict[str, str] = {}
    for line in OFFER.finditer(asked[-1] if asked else ""):
        if line[1] == "A":
            options = {"A": line[2].strip()}
        elif options and line[1] == chr(ord("A") + len(options)):
            options[line[1]] = line[2].strip()
    return options if len(options) > 1 else {}


def read_choice(answer: str, options: Mapping[str, str]) -> str:
    """The one letter that an answer chooses, in upper case; empty where it chooses none or several.

    options: by their letters, as `offered_options` gives them; other letters are then not looked
    at. In this order, Markdown and TeX's `\\boxed` aside:

    - an answer that is the text of exactly one option, with or without its letter, chooses that;
    - "the answer is B", "Answer: (B)", "I choose B." and "B is correct" choose B;
    - a line that begins with a letter in brackets ("(B)", "B)") or closed by punctuation, by the
      line's end or by a reason ("B.", "B because …") chooses it; lines that begin with several
      letters only repeat the options.

    Two different letters, "A and B" or "not B" choose nothing, and "A reduction of …" begins with
    an article. `A:` before a text that is not option A's may stand for "Answer:" and is left out.
    """
    text = BOXED.sub(r"Answer: \1\n", _folded(answer))
    shown = {letter: _folded(option) for letter, option in options.items()}
    whole = _whole_option(text, shown)
    if whole:
        return whole
    leading = _chosen(LEAD, text, shown)
    if len(leading) > 1:
        leading = set()
    chosen = _chosen(STATED, text, shown) | _chosen(CALLED_RIGHT, text, shown) | leading
    return chosen.pop() if len(chosen) == 1 else NO_SINGLE


def score_choice(reply: Reply, question: Question) -> Score:
    """1 where the answer chooses the reference's letter, 0 otherwise; label: the letter chosen."""
    options = offered_options(question)
    expected = read_choice(text_of(question.reference), options)
    if not expected:
        return Score(0.0, why="the reference names no single option")
    letter = read_choice(reply.text, options)
    if not letter:
        return Score(0.0, why="the answer does not choose one option")
    return Score(float(letter == expected), label=letter)


def _folded(text: str) -> str:
    """Without Markdown, every run of white space one blank or one line break."""
    plain = unicodedata.normalize("NFKC", text).translate(MARKUP)
    lines = (" ".join(line.split()) for line in plain.splitlines())
    return QUOTED_LETTER.sub(r"\1", "\n".join(line for line in lines if line))


def _whole_option(text: str, options: Mapping[str, str]) -> str:
    """The letter of the option whose text, with or without its letter, is all of the answer."""
    if len(text) < 2 and text.isalpha():
        return NO_SINGLE
    wanted = normalize_answer(text)
    same = [letter for letter, option in options.items() if normalize_answer(option) == wanted]
    if len(same) == 1:
        return same[0]
    lettered = LETTERED.fullmatch(text)
    if lettered:
        letter = lettered[1].upper()
        if normalize_answer(options.get(letter, "")) == normalize_answer(lettered[2]):
            return letter
    return NO_SINGLE


def _chosen(pattern: re.Pattern[str], text: str, options: Mapping[str, str]) -> set[str]:
    """Letters that the pattern finds chosen; `NO_SINGLE` among them where it finds a list."""
    chosen = set()
    for match in pattern.finditer(text):
        start = next(match.start(n) for n, one in enumerate(match.groups(), 1) if one)
        letter, rest = text[start].upper(), text[start + 1 : start + 1000]
        begun = _option_begun(text[start : start + 1000], options)
        own = options.get(letter, "")
        if begun:
            chosen.add(begun)
        elif options and letter not in options:
            continue
        elif own and rest.lstrip(")].: ").startswith(own):
            chosen.add(letter)
        elif pattern is LEAD and letter == "A" and re.match(r":[ \n]\S", rest):
            continue
        else:
            chosen.add(NO_SINGLE if _LISTED.match(rest) else letter)
    return chosen


def _option_begun(text: str, options: Mapping[str, str]) -> str:
    """The option whose own text starts here, as in "C. difficile": no letter was meant."""
    found = [
        letter
        for letter, option in options.items()
        if len(option) > 1 and text.casefold().startswith(option.casefold())
    ]
    return found[0] if len(found) == 1 else NO_SINGLE
