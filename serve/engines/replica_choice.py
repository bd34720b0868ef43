"""Which of several equal engines a request goes to: arithmetic alone."""

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from serve.engine import Completion

SLACK = 1.25
"""How far above the mean a replica's load may go for the sake of its cached prefixes."""
PREFIX_CHARACTERS = 4096
"""Of a prefix, that many tell it from others."""


class Load(NamedTuple):
    """A replica that may be chosen: its name, and requests that it works on."""

    name: str
    running: int


def least_loaded(loads: Sequence[Load], *, turn: int) -> int:
    """The place of the one with the fewest requests; `turn` decides between equals."""
    fewest = min(load.running for load in loads)
    equals = [place for place, load in enumerate(loads) if load.running == fewest]
    return equals[turn % len(equals)]


def by_prefix(loads: Sequence[Load], key: bytes) -> int:
    """The place of the one that has answered this prefix before, unless it is busier than others.

    Each key ranks the replicas in an order of its own (rendezvous hashing, Thaler and Ravishankar
    1998), so that one that is lost moves no other's keys; the first whose load stays within
    `SLACK` of the mean is taken (bounded loads, Mirrokni et al. 2016, arXiv 1608.01350).
    """
    bound = math.ceil(SLACK * (sum(load.running for load in loads) + 1) / len(loads))
    ranked = sorted(range(len(loads)), key=lambda place: _rank(key, loads[place].name))
    return next(place for place in ranked if loads[place].running < bound)


def prefix_key(request: Completion) -> bytes:
    """What a conversation keeps from turn to turn, and shares with others of the same prompt.

    Model, tools, and the turns up to the first of the user's.
    """
    opening = []
    for message in request.messages:
        opening.append(message)
        if message["role"] == "user":
            break
    told = json.dumps([request.model, list(request.tools), opening], sort_keys=True, default=str)
    return hashlib.blake2b(told[:PREFIX_CHARACTERS].encode("utf-8", "replace")).digest()


def share_of_cards(number: int, *, cards_each: int, visible: str | None) -> str:
    """`CUDA_VISIBLE_DEVICES` of a replica, out of this process's own where it has one."""
    mine: Collection[int] = range(number * cards_each, (number + 1) * cards_each)
    if visible is None:
        return ",".join(map(str, mine))
    cards = [card.strip() for card in visible.split(",") if card.strip()]
    return ",".join(cards[place] for place in mine if place < len(cards))


def _rank(key: bytes, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), key=key[:64], digest_size=8).digest()
