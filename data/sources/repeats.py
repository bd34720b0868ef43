"""One answer to each question: what the packaged sources keep of their rows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from data.conversation import Conversation, text_of


class UniqueRows(NamedTuple):
    """Rows with one answer to each question, and how many others were dropped, by rule."""

    rows: list[Conversation]
    dropped: Counter[str]


def drop_repeats(rows: Sequence[Conversation]) -> UniqueRows:
    """Keep the first row of each question; none of a question that has several answers.

    Rows are one question, one answer; questions are compared casefolded.
    """
    by_question: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        by_question[text_of(row.messages[0]).casefold()].append(row)
    kept: list[Conversation] = []
    dropped: Counter[str] = Counter()
    for same in by_question.values():
        if len({text_of(row.messages[-1]) for row in same}) > 1:
            dropped["question with several answers"] += len(same)
        else:
            kept.append(same[0])
            dropped["repeated question"] += len(same) - 1
    return UniqueRows(rows=kept, dropped=+dropped)
