"""Which of a route's targets answers a client: the same one each time, by the client's name alone.

A client stands at a fixed place between 0 and 100. The target that has the rest (`to`) lies in the
middle, the two others at the ends, so a changed percentage moves clients between that target and
`to` and nobody else. The ends are dealt round a circle, so that handing the rest from one of two
targets to the other, all shares unchanged, moves nobody.
"""

import hashlib
from collections.abc import Mapping

from configs.serve_schema import TargetName

BEFORE: Mapping[TargetName, TargetName] = {"base": "hosted", "variant": "base", "hosted": "variant"}
AFTER: Mapping[TargetName, TargetName] = {before: target for target, before in BEFORE.items()}


def place_of(client: str, *, route: str) -> float:
    """Where the client stands, from 0 to below 100, evenly spread over clients.

    The route's name is part of it: who comes first to the variant of one route is no likelier to
    come first on another.
    """
    # The length in front keeps apart ("ab", "c") and ("a", "bc").
    name = f"{len(route)}:{route}{client}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
    return (number >> 11) / 2**53 * 100  # 53 bits: what a float holds exactly


def choose_target(
    client: str, *, route: str, to: TargetName, split: Mapping[TargetName, float]
) -> TargetName:
    """Who answers this client. split: percent of the clients per target; `to` has the rest."""
    if not split:
        return to
    place = place_of(client, route=route)
    if place < split.get(BEFORE[to], 0):
        return BEFORE[to]
    if place >= 100 - split.get(AFTER[to], 0):
        return AFTER[to]
    return to
