"""A source that is small enough to be read at once: the rows out of a pinned package."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data.checks import RowError, check_messages
from data.conversation import Conversation, ReadRows, Reject


@dataclass(frozen=True, kw_only=True)
class WholeSource:
    """A source of one chunk; load: a function of a module, so that the source can be pickled."""

    load: Callable[[], ReadRows]
    licence: str
    attribution: str
    told: str = ""

    def chunks(self) -> Iterator[None]:
        """One chunk."""
        yield None

    def read(self, chunk: None) -> ReadRows:
        """All rows; those that the checks of every source refuse are rejects."""
        rows = self.load()
        conversations: list[Conversation] = []
        rejects = list(rows.rejects)
        for row in rows.conversations:
            try:
                check_messages(row.messages, row.tools)
            except RowError as error:
                rejects.append(Reject(where=row.where or row.id, reason=str(error)))
            else:
                conversations.append(row)
        return ReadRows(
            conversations=conversations,
            num_read=rows.num_read,
            rejects=rejects,
            dropped=rows.dropped,
        )
