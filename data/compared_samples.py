"""A question of an evaluation with both sides' answers, as a line of `evals/samples.jsonl` holds
it: what the evaluation writes and the workbench shows.
"""

from typing import Literal, NotRequired, TypedDict

from data.conversation import Message, ToolDefinition

SAMPLES_FILE = "samples.jsonl"
Outcome = Literal["won", "lost", "both_wrong", "both_right", "same"]
"""For the variant; `same`: the same score, between right and wrong."""


class SideAnswer(TypedDict):
    """One side's answer; name: as reports call the side; text: that of the first epoch, calls in
    words after it; score: from 0 to 1, the mean over all epochs.
    """

    name: str
    text: str
    score: float


class ComparedSample(TypedDict):
    """One question.

    id: unique within the task; messages: the chat messages that the variant was sent, zero-shot,
    the system turn included; reference: the expected answer as text; image_left_out: true where
    images were too large to be kept, and a text stands in the place of each.
    """

    id: str
    task: str
    outcome: Outcome
    messages: list[Message]
    tools: NotRequired[list[ToolDefinition]]
    reference: str
    baseline: SideAnswer
    variant: SideAnswer
    image_left_out: NotRequired[bool]
