"""The data report: one page that shows what goes into training, as the model will see it."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.schema import RunConfig
from data.conversation import Reject
from data.html import load_page
from data.report.notes import build_notes, format_percent, format_setting
from data.splits import SIDES
from data.steps.render_rows import Span

TEMPLATE = Path(__file__).parent / "report.html.jinja"
MAX_TICKS = 6
# What templates put around turns, in the forms of the common ones; shown as a label, not changed.
CONTROL_TOKEN = re.compile(
    r"(<\|[^|<>\s]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?[A-Z_]{3,30}\])"
)
WORD = re.compile(r"\w+")
# A cut stretch of fewer words may agree by chance.
MIN_WORDS_OF_A_CUT_STRETCH = 4
KIND_NAMES = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "ssn": "US social security numbers",
    "card": "payment cards",
    "iban": "IBAN",
    "medical_record": "medical record numbers",
    "name": "names",
}


class Piece(NamedTuple):
    """Part of a text; marked: supervised or shared, by what is shown; control: a control token."""

    text: str
    marked: bool
    control: bool = False


class Part(NamedTuple):
    """Part of a bar that is all rows read; kind: the class that colours it."""

    label: str
    num_rows: int
    kind: str


class Tick(NamedTuple):
    """A number on an axis; at: its place in percent of the axis."""

    value: int
    at: float


class HistogramBar(NamedTuple):
    """Rows of `first` to `last` tokens; height: percent of the side's highest bar."""

    first: int
    last: int
    num_rows: int
    height: float


def write_report(
    file: Path,
    config: RunConfig,
    facts: Mapping[str, Any],
    rejects: Sequence[Reject],
    samples: Sequence[Sequence[Span]],
) -> None:
    """Write the page as one file without outside parts; every text of the data is escaped.

    facts: as `facts.json` holds them; rejects: the first ones of each reason; samples: rows.
    """
    filters = {
        "count": _count,
        "percent": format_percent,
        "setting": format_setting,
    }
    lengths = facts["lengths"]
    html = load_page(TEMPLATE, filters).render(
        config=config,
        facts=facts,
        sides=SIDES,
        notes=build_notes(facts),
        parts=row_parts(facts),
        histograms={side: histogram(lengths, side) for side in SIDES if facts["num_rows"][side]},
        ticks=ticks(lengths["bin_width"] * len(lengths["bins"]["train"])),
        pairs=[
            (
                pair,
                {
                    side: mark_shared(pair[f"{side}_text"], pair["shared_text"])
                    for side in ("test", "train")
                },
            )
            for pair in facts["contamination"]["pairs"]
        ],
        rejects=_by_reason(rejects),
        samples=[list(_pieces(sample)) for sample in samples],
        kind_names=KIND_NAMES,
        zip=zip,
    )
    file.write_text(html, encoding="utf-8")


def row_parts(facts: Mapping[str, Any]) -> list[Part]:
    """Where every row that was read has gone: a side, a rule that leaves out, or the rejects.

    What nothing accounts for, which is a fault of this program, comes last and by name.
    """
    parts = [Part(f"used for {side}", facts["num_rows"][side], side) for side in SIDES]
    parts += [Part(f"left out: {rule}", num, "out") for rule, num in facts["dropped"].items()]
    parts += [Part("rejected", facts["num_rejects"], "rejected")]
    num_lost = facts["num_read"] - sum(part.num_rows for part in parts)
    return parts + ([Part("not accounted for", num_lost, "lost")] if num_lost else [])


def histogram(lengths: Mapping[str, Any], side: str) -> list[HistogramBar]:
    """A side's rows by length; heights are relative to the side, so that shapes can be compared."""
    width, bins = lengths["bin_width"], lengths["bins"][side]
    highest = max(bins)
    return [
        HistogramBar(number * width + 1, (number + 1) * width, num_rows, 100 * num_rows / highest)
        for number, num_rows in enumerate(bins)
    ]


def ticks(end: int) -> list[Tick]:
    """At most six round numbers from 0 on, for an axis that ends at `end`."""
    step = next(
        base * 10**power
        for power in range(12)
        for base in (1, 2, 5)
        if end // (base * 10**power) < MAX_TICKS
    )
    return [Tick(value, 100 * value / end) for value in range(0, end + 1, step)]


def mark_shared(text: str, shared: str) -> list[Piece]:
    """`text` in pieces, marked where it has the words of `shared`, whatever their case and signs.

    Both may be cut at their ends: the mark then goes as far as they agree. Where the words do not
    stand in `text`, it is one piece that is not marked.
    """
    words = list(WORD.finditer(text))
    have = [word[0].casefold() for word in words]
    wanted = [word.casefold() for word in WORD.findall(shared)]
    agreed = [_num_agreed(have[first:], wanted) for first in range(len(have))]
    longest = max(agreed, default=0)
    if not longest:
        return [Piece(text, False)]
    first = agreed.index(longest)
    start, end = words[first].start(), words[first + longest - 1].end()
    pieces = [Piece(text[:start], False), Piece(text[start:end], True), Piece(text[end:], False)]
    return [piece for piece in pieces if piece.text]


def _num_agreed(have: list[str], wanted: list[str]) -> int:
    """How many first words agree; 0 where they part before the last whole word of either."""
    pairs = zip(have, wanted, strict=False)
    num = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    shorter = min(len(have), len(wanted))
    if num is None:
        num = shorter
    is_whole = num == len(wanted)
    return num if is_whole or num >= max(shorter - 1, MIN_WORDS_OF_A_CUT_STRETCH) else 0


def _pieces(sample: Sequence[Span]) -> Iterator[Piece]:
    for span in sample:
        for number, text in enumerate(CONTROL_TOKEN.split(span.text)):
            if text:
                yield Piece(text, span.supervised, control=number % 2 == 1)


def _by_reason(rejects: Sequence[Reject]) -> dict[str, list[str]]:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for reject in rejects:
        places[reject.reason].append(reject.where)
    return dict(places)


def _count(number: int) -> str:
    return f"{number:,}"
