"""What the gates ask of a model, whatever runs it: held-out rows in, scores of their tokens out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.conversation import Conversation

# The likeliest tokens that are kept of every distribution.
NUM_TOP = 32


@dataclass(frozen=True, eq=False)
class HeldOutRow:
    """A row that training never saw, as it is tokenized for training.

    ids (int32) and mask (int8) have shape (num_tokens,); a token is scored where its mask is 1,
    given all tokens before it.
    """

    conversation: Conversation
    ids: np.ndarray
    mask: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """Places of the scored tokens in `ids`, ascending; never the first token."""
        return np.flatnonzero(self.mask[1:]) + 1

    @property
    def prompt_ids(self) -> np.ndarray:
        """The tokens in front of the last answer: where a greedy answer begins."""
        scored = self.scored
        breaks = np.flatnonzero(np.diff(scored) > 1)
        return self.ids[: scored[breaks[-1] + 1 if len(breaks) else 0]]


@dataclass(frozen=True, eq=False)
class Scores:
    """Of every scored token, row after row; n scored tokens, k likeliest ones kept.

    log_probs, (n,): of the token that stands there, in nats; top_ids, (n, k), int32, and
    top_log_probs, (n, k): the likeliest tokens at its place, likeliest first.
    """

    log_probs: np.ndarray
    top_ids: np.ndarray
    top_log_probs: np.ndarray

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the scored tokens, in nats."""
        return float(-self.log_probs.mean())


class TokenScores(Protocol):
    """Anything that has what `Scores` holds: an engine's scorer knows no `Scores`."""

    @property
    def log_probs(self) -> np.ndarray:
        """Of the tokens that stand there."""

    @property
    def top_ids(self) -> np.ndarray:
        """The likeliest tokens."""

    @property
    def top_log_probs(self) -> np.ndarray:
        """Of the likeliest tokens."""


class Scorer(Protocol):
    """A loaded model."""

    def score(self, rows: Sequence[HeldOutRow]) -> TokenScores:
        """The scores of all rows' scored tokens."""

    def answer(self, rows: Sequence[HeldOutRow], *, max_tokens: int) -> list[list[int]]:
        """Greedy answers to the rows' prompts, as token ids, without the end token."""

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Token ids that the model's own files give a conversation that waits for an answer."""
