"""What a reader of the data report should look at first: the facts, weighed, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

# Below this many test rows, and above these shares, a note asks for a look.
FEW_TEST_ROWS = 100
MANY_REJECTS = 0.02
MANY_TRUNCATED = 0.01
ONE_ANSWER = 0.5


class Note(NamedTuple):
    """A sentence about the data; section: the part of the page that shows it."""

    level: Literal["fine", "look", "wrong"]
    text: str
    section: str


def build_notes(facts: Mapping[str, Any]) -> list[Note]:
    """One note or more on each check, what is wrong first, then what is worth a look."""
    notes = [
        *_rows(facts),
        *_contamination(facts["contamination"]),
        *_personal_data(facts["personal_data"]),
        *_answers(facts),
        *_lengths(facts),
        *_licences(facts["sources"]),
        *_official_splits(facts["sources"]),
    ]
    return sorted(notes, key=lambda note: ("wrong", "look", "fine").index(note.level))


def format_percent(share: float) -> str:
    """A share of 1 in percent, with a decimal where it is small; what is not 0 never shows as 0."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def format_setting(share: float) -> str:
    """A share of 1 that somebody has chosen, in percent as they would write it."""
    return f"{100 * share:g} %"


def _rows(facts: Mapping[str, Any]) -> Iterator[Note]:
    num_read, num_rejects = facts["num_read"], facts["num_rejects"]
    num_used = sum(facts["num_rows"].values())
    num_lost = num_read - num_used - sum(facts["dropped"].values()) - num_rejects
    if num_lost:
        yield Note("wrong", f"{num_lost:,} rows are not accounted for.", "rows")
    else:
        yield Note("fine", f"All {_rows_of(num_read)} that were read are accounted for.", "rows")
    if num_rejects > MANY_REJECTS * num_read:
        share = format_percent(num_rejects / num_read)
        reason, count = next(iter(facts["reject_reasons"].items()))
        text = f"{share} of the rows are rejected; most often ({count:,}): {reason}."
        yield Note("look", text, "rejects")
    num_test = facts["num_rows"]["test"]
    if num_test < FEW_TEST_ROWS:
        text = f"Only {_rows_of(num_test)} to test on: small differences will stay unseen."
        yield Note("look", text, "rows")


def _contamination(contamination: Mapping[str, Any]) -> Iterator[Note]:
    limit = contamination["max_share"]
    for one in contamination["sets"]:
        own = one["label"] == "test rows"
        name = one["label"] if own else f"rows of {one['label']}"
        if not one["num_known"]:
            text = f"None of the {one['num_rows']:,} {name} is known from rows for training."
            yield Note("fine", text, "contamination")
            continue
        share = one["num_known"] / one["num_rows"]
        text = (
            f"{one['num_known']:,} of {one['num_rows']:,} {name} ({format_percent(share)}) are "
            f"known from rows for training; the run stops above {format_setting(limit)}."
        )
        yield Note("wrong" if share > limit else "look", text, "contamination")


def _personal_data(personal_data: Mapping[str, Any]) -> Iterator[Note]:
    if not personal_data["kinds"]:
        yield Note("look", "Personal data was not looked for.", "personal-data")
    elif not personal_data["num_rows"]:
        yield Note("fine", "No personal data was found.", "personal-data")
    else:
        told = {
            "report": "which stays in; data.personal_data.action can mask it or drop the rows",
            "mask": "which was replaced by placeholders",
            "drop": "and were rejected for it",
        }[personal_data["action"]]
        level: Literal["look", "fine"] = "look" if personal_data["action"] == "report" else "fine"
        text = f"{_rows_of(personal_data['num_rows'])} with personal data, {told}."
        yield Note(level, text, "personal-data")


def _answers(facts: Mapping[str, Any]) -> Iterator[Note]:
    share = facts["answers"]["largest_share"]
    if facts["answers"]["num_different"] == 1:
        yield Note("wrong", "All rows have the same answer: there is nothing to learn.", "balance")
    elif share >= ONE_ANSWER:
        text = f"One answer stands in {format_percent(share)} of the rows: giving it always is a "
        yield Note("look", text + "baseline to beat.", "balance")


def _lengths(facts: Mapping[str, Any]) -> Iterator[Note]:
    num_truncated, num_used = facts["num_truncated"], sum(facts["num_rows"].values())
    if num_truncated > MANY_TRUNCATED * num_used:
        text = (
            f"{_rows_of(num_truncated)} ({format_percent(num_truncated / num_used)}) lost turns to "
            f"stay within model.max_length, {facts['max_length']:,} tokens."
        )
        yield Note("look", text, "lengths")


def _licences(sources: list[Mapping[str, Any]]) -> Iterator[Note]:
    for source in sources:
        if source["licence"] in ("", "not stated"):
            text = f"The licence of {source['label']} is not stated."
            yield Note("look", text, "sources")


def _rows_of(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _official_splits(sources: Sequence[Mapping[str, Any]]) -> Iterator[Note]:
    for source in sources:
        missing = source["missing_test_ids"]
        if missing:
            text = (
                f"{len(missing):,} listed test ids of {source['label']} are those of no usable "
                f"row, such as {', '.join(missing[:3])}."
            )
            yield Note("look", text, "split")
