"""What every metric takes and gives, so that tasks choose one by its name alone."""

from collections.abc import Callable
from typing import NamedTuple

from data.conversation import ToolCall
from evals.task import Question


class Reply(NamedTuple):
    """An answer as the host sent it: its text, and the calls that it makes."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()


class Score(NamedTuple):
    """value: from 0 to 1; label: what the answer was understood to be, empty where it was not.

    why: what was wrong, in words for whoever reads the answer; empty where nothing was.
    """

    value: float
    label: str = ""
    why: str = ""


Metric = Callable[[Reply, Question], Score]
