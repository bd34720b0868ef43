"""Which side of the split a conversation stands on: decided by its own content, for good.

The side comes from a hash of the row's group, so it does not depend on the order or the number of
rows: when data grow, no row that was tested before is trained on later.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

from data.conversation import Conversation, Message

Side = Literal["train", "validation", "test"]


def content_hash(messages: Sequence[Message]) -> str:
    """SHA-256 of roles and contents, hex: equal for rows that teach the same."""
    digest = hashlib.sha256()
    for turn in messages:
        for part in (turn["role"], turn["content"]):
            digest.update(len(part).to_bytes(8) + part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def question_key(messages: Sequence[Message]) -> str:
    """What the turns ask, whatever its case and white space; answers do not count."""
    asked = (turn["content"] for turn in messages if turn["role"] != "assistant")
    return " ".join(" ".join(asked).casefold().split())


def assign_side(
    conversation: Conversation, *, test_fraction: float, validation_fraction: float
) -> Side:
    """The side of a row; rows of one group, or with one question, always share it.

    test_fraction is taken of all groups and validation_fraction of what remains, unless the source
    has decided the row's side itself.
    """
    group = conversation.group or question_key(conversation.messages)
    side = conversation.side or ("test" if _share(group, "test") < test_fraction else "train")
    if side == "train" and _share(group, "validation") < validation_fraction:
        return "validation"
    return side


def _share(group: str, salt: str) -> float:
    digest = hashlib.sha256(f"{salt}\0{group}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
