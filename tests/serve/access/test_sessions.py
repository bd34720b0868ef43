"""Sessions stand for the key that opened them: no longer than it is good, and not for ever."""

from pathlib import Path

import pytest

from serve.access.commands import add_key, remove_key
from serve.access.keys import KeyRing
from serve.access.sessions import LIFETIME_S, MAX_SESSIONS, Sessions
from serve.errors import ApiError


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_token_stands_for_the_header_that_opened_it(keys_file: Path) -> None:
    header = f"Bearer {add_key(keys_file, 'office')}"
    sessions = Sessions(KeyRing(keys_file))
    token, other = sessions.open(header), sessions.open(header)
    assert token != other
    assert len(token) >= 43  # 256 bits
    assert header not in token
    assert sessions.authorization_of(token) == header
    assert sessions.authorization_of(token + "x") is None
    assert sessions.authorization_of("") is None


def test_nobody_opens_one_without_a_good_key(keys_file: Path) -> None:
    header = f"Bearer {add_key(keys_file, 'office')}"
    sessions = Sessions(KeyRing(keys_file))
    for wrong in (None, "Bearer none", header + "x"):
        with pytest.raises(ApiError) as refused:
            sessions.open(wrong)
        assert refused.value.status == 401
    add_key(keys_file, "other")
    remove_key(keys_file, "office")
    with pytest.raises(ApiError):
        sessions.open(header)


def test_opening_one_counts_against_no_rate(keys_file: Path) -> None:
    header = f"Bearer {add_key(keys_file, 'office', requests_per_minute=1)}"
    sessions = Sessions(KeyRing(keys_file))
    assert len({sessions.open(header) for _ in range(5)}) == 5


def test_it_ends_after_half_a_day() -> None:
    now = 1000.0
    sessions = Sessions(KeyRing(None), now=lambda: now)
    token = sessions.open("Bearer a")
    now += LIFETIME_S
    assert sessions.authorization_of(token) == "Bearer a"
    now += 1
    assert sessions.authorization_of(token) is None


def test_the_oldest_makes_room() -> None:
    sessions = Sessions(KeyRing(None))
    tokens = [sessions.open(f"Bearer {number}") for number in range(MAX_SESSIONS + 1)]
    assert sessions.authorization_of(tokens[0]) is None
    assert sessions.authorization_of(tokens[1]) == "Bearer 1"
    assert sessions.authorization_of(tokens[-1]) == f"Bearer {MAX_SESSIONS}"
