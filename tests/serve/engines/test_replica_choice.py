"""Where requests go: each prefix to its own replica, and none of them far above the mean."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data.conversation import Message
from serve.engine import Completion
from serve.engines.replica_choice import (
    SLACK,
    Load,
    by_prefix,
    least_loaded,
    prefix_key,
    share_of_cards,
)

KEYS = [str(number).encode() for number in range(600)]


def request(*texts: str, system: str = "Be brief.") -> Completion:
    turns: list[Message] = [
        {"role": "assistant" if number % 2 else "user", "content": text}
        for number, text in enumerate(texts)
    ]
    return Completion(model="m", messages=({"role": "system", "content": system}, *turns))


def idle(num: int) -> list[Load]:
    return [Load(f"replica-{number}", 0) for number in range(num)]


def test_the_turns_of_a_conversation_have_one_key() -> None:
    first = prefix_key(request("Hello"))
    assert prefix_key(request("Hello", "Hi", "And now?")) == first
    assert prefix_key(request("Good day")) != first
    assert prefix_key(request("Hello", system="Be long.")) != first


def test_keys_spread_over_all_replicas() -> None:
    counts = Counter(by_prefix(idle(4), key) for key in KEYS)
    assert len(counts) == 4
    assert min(counts.values()) > len(KEYS) / 4 * 0.7


def test_a_lost_replica_moves_its_own_keys_alone() -> None:
    loads = idle(4)
    rest = loads[:-1]
    moved = [key for key in KEYS if loads[by_prefix(loads, key)] != rest[by_prefix(rest, key)]]
    assert moved == [key for key in KEYS if by_prefix(loads, key) == 3]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.binary(min_size=1, max_size=64))
def test_no_replica_gets_more_than_its_bound(running: list[int], key: bytes) -> None:
    loads = [Load(str(number), count) for number, count in enumerate(running)]
    chosen = by_prefix(loads, key)
    assert running[chosen] + 1 <= math.ceil(SLACK * (sum(running) + 1) / len(running))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_least_loaded_has_the_fewest(running: list[int], turn: int) -> None:
    loads = [Load(str(number), count) for number, count in enumerate(running)]
    assert running[least_loaded(loads, turn=turn)] == min(running)


def test_equals_take_turns() -> None:
    assert [least_loaded(idle(3), turn=turn) for turn in range(4)] == [0, 1, 2, 0]


def test_each_replica_has_cards_of_its_own() -> None:
    assert share_of_cards(1, cards_each=2, visible=None) == "2,3"
    assert share_of_cards(1, cards_each=2, visible="4, 5,6,7") == "6,7"
    assert share_of_cards(1, cards_each=2, visible="4,5,6") == "6"
