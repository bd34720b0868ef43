"""Personal data in the rows, found before a model learns them by heart.

Most rows hold none, so a compiled pattern looks over all texts at once, and only the rows in which
it sees a candidate are read closely.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from configs.data_schema import PersonalDataKind
from configs.errors import UserError
from data.personal import patterns

PLACEHOLDERS: dict[PersonalDataKind, str] = {
    "email": "[EMAIL]",
    "phone": "[PHONE]",
    "ssn": "[SSN]",
    "card": "[CARD]",
    "iban": "[IBAN]",
    "medical_record": "[MEDICAL RECORD]",
    "name": "[NAME]",
}
# What a text must hold, all of it, for the search of its kind to be worth it: looser than the
# search, so that none is missed, and without Unicode's case folding, which is slow.
SEVEN_DIGITS = r"[0-9](?:[ \u{a0}().\-/]{0,2}[0-9]){6}"
PREFILTERS: dict[PersonalDataKind, tuple[str, ...]] = {
    "email": ("@",),
    "phone": (
        SEVEN_DIGITS,
        r"\+ ?[1-9][0-9 \u{a0}().\-/]{7}|[0-9]{3}[\-.)] ?[\-.]?[0-9]{3}[\-. ][0-9]{4}"
        r"|(?i-u:tel|phone|fax|mob|cell|call|dial|whatsapp|hotline|handy|\bph\b)|[Tt][éÉ][Ll]|TÉL",
    ),
    "ssn": (
        r"[0-9]{3}[\- ]?[0-9]{2}[\- ]?[0-9]{4}",
        r"[0-9]{3}-[0-9]{2}-[0-9]{4}|(?i-u:ssn|itin|social\s)",
    ),
    "card": (r"[0-9]{4}[ \-]?[0-9]{4}[0-9 \-]{5}",),
    "iban": (r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4} ?[A-Z0-9]{4}",),
    "medical_record": (
        r"(?i-u)(?:mrn|uhid|nhs|id|identifier|number|num|no|nr|is|was|#)\.?\s{0,2}[:=#]{0,2}\s{0,2}"
        r"[a-z]{0,4}-?[0-9](?:[-\x20]?[0-9]){4}"
        r"|[1-9][A-Z][A-Z0-9][0-9]-[A-Z][A-Z0-9][0-9]-[A-Z]{2}[0-9]{2}",
    ),
    "name": (r"\p{Lu}\p{L}",),
}
# Where two kinds claim the same characters the earlier one has them: it is checked more strictly.
SEARCHES: dict[PersonalDataKind, patterns.FindExtents] = {
    "iban": patterns.find_accounts,
    "card": patterns.find_cards,
    "email": patterns.find_emails,
    "medical_record": patterns.find_medical_records,
    "ssn": patterns.find_social_security_numbers,
    "phone": patterns.find_phones,
}
RANKS = {kind: rank for rank, kind in enumerate([*SEARCHES, "name"])}


class Finding(NamedTuple):
    """A stretch of a text; row: its number in the batch; start and end in characters."""

    row: int
    start: int
    end: int
    kind: PersonalDataKind


class PersonalDataFinder:
    """Looks for the configured kinds; build one per process, for names load a model."""

    def __init__(self, kinds: Sequence[PersonalDataKind]) -> None:
        """Raises a `UserError` where `name` is asked for and the extra is not installed."""
        self._searches = {kind: SEARCHES[kind] for kind in SEARCHES if kind in kinds}
        self._find_names = _load_name_search() if "name" in kinds else None

    def find(self, texts: Sequence[str] | pa.StringArray) -> list[Finding]:
        """All findings, in the order of the texts; no two share a character.

        texts: hold no half of a surrogate pair, which no UTF-8 has. Large batches are cheapest.
        """
        if isinstance(texts, (pa.Array, pa.ChunkedArray)):
            series = pl.Series(pl.from_arrow(texts), dtype=pl.String)
        else:
            series = pl.Series(texts, dtype=pl.String)
        found: list[Finding] = []
        for kind, search in self._searches.items():
            for row, text in _candidates(series, kind):
                found += [Finding(row, start, end, kind) for start, end in search(text)]
        if self._find_names:
            candidates = list(_candidates(series, "name"))
            names = self._find_names([text for _, text in candidates])
            for (row, _), extents in zip(candidates, names, strict=True):
                found += [Finding(row, start, end, "name") for start, end in extents]
        return _without_overlaps(found)


def mask(text: str, findings: Sequence[Finding]) -> str:
    """The text with a placeholder such as `[EMAIL]` for each finding; they share no character."""
    for finding in sorted(findings, key=lambda one: one.start, reverse=True):
        text = text[: finding.start] + PLACEHOLDERS[finding.kind] + text[finding.end :]
    return text


def redact(found: str, *, kind: PersonalDataKind) -> str:
    """What a report may show of a finding's text: `a…@e….com`, `J… D…`, `***-**-*789`.

    Of a number, the last four characters at most, and never more than a third of them.
    """
    match kind:
        case "email":
            local, _, domain = found.partition("@")
            return f"{local[0]}…@{domain[0]}….{domain.rpartition('.')[2]}"
        case "name":
            return " ".join(f"{word[0]}…" for word in found.split())
    num_shown = min(4, sum(sign.isalnum() for sign in found) // 3)
    hidden, shown = found[: len(found) - num_shown], found[len(found) - num_shown :]
    return re.sub(r"\w", "*", hidden) + shown


def _candidates(series: pl.Series, kind: PersonalDataKind) -> Iterator[tuple[int, str]]:
    """Rows whose text passes the kind's prefilter, with their numbers."""
    first, *others = PREFILTERS[kind]
    rows = series.str.contains(first).arg_true()
    for pattern in others:
        rows = rows.filter(series.gather(rows).str.contains(pattern))
    return zip(rows, series.gather(rows), strict=True)


def _load_name_search() -> Callable[[Sequence[str]], list[list[patterns.Extent]]]:
    """The search for names; its libraries load only here, for they take seconds."""
    try:
        module = importlib.import_module("data.personal.names")
    except ModuleNotFoundError as error:
        raise UserError(
            f"looking for names needs the package {error.name}",
            where="data.personal_data.kinds: name",
            remedy='pip install "tunery[presidio]"',
        ) from error
    search: Callable[[Sequence[str]], list[list[patterns.Extent]]] = module.NameFinder().find
    return search


def _without_overlaps(found: list[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    first_of_row = 0
    for one in sorted(found, key=lambda one: (one.row, RANKS[one.kind], one.start, -one.end)):
        if kept and kept[-1].row != one.row:
            first_of_row = len(kept)
        same_row = kept[first_of_row:]
        if all(one.end <= other.start or other.end <= one.start for other in same_row):
            kept.append(one)
    return sorted(kept)
