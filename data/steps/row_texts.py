"""A few rows of the spool by their number, for what people read."""

from collections.abc import Sequence

from data.conversation import Conversation, text_of
from data.steps.index_rows import RowIndex
from data.steps.spool import Spool, conversations_of


def rows_at(spool: Spool, index: RowIndex, numbers: Sequence[int]) -> list[Conversation]:
    """The rows of these numbers, in this order; meant for dozens of rows."""
    found: dict[int, Conversation] = {}
    by_bucket: dict[int, list[int]] = {}
    for number in sorted(set(numbers)):
        by_bucket.setdefault(index.bucket_of(number), []).append(number)
    for bucket, own in by_bucket.items():
        first = index.rows_of(bucket).start
        table = spool.read(bucket).take([number - first for number in own])
        found.update(zip(own, conversations_of(table), strict=True))
    return [found[number] for number in numbers]


def question_of(row: Conversation) -> str:
    """What a row asks: its turns up to the last one, assistant's included."""
    return "\n".join(text_of(turn) for turn in row.messages[:-1])


def shorten(text: str, most: int) -> str:
    """At most `most` characters of a text; a sign shows that it was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"
