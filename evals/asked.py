"""Which question is being asked right now, for what stands behind inspect's model interface."""

from contextvars import ContextVar
from typing import NamedTuple


class Asked(NamedTuple):
    """task: the inspect task's name; id: the question's; epoch: from 1."""

    task: str
    id: str
    epoch: int


ASKED: ContextVar[Asked] = ContextVar("ASKED")
"""Set by the solver before it generates."""
