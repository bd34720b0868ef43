"""Who is let in, by real files of keys."""

import base64
import logging
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from serve.access.commands import add_key, remove_key
from serve.access.keys import ANONYMOUS, Client, KeyRing, parse_bearer
from serve.access.rate_limit import NS_PER_S, RateLimiter
from serve.errors import ApiError
from tests.serve.access.test_rate_limit import Clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def refusal(ring: KeyRing, authorization: str | None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ring.check(authorization)
    return caught.value


def assert_unauthenticated(error: ApiError, message: str) -> None:
    assert error.status == 401
    assert message in error.message
    body = error.body()
    assert body["error"]["type"] == body["status_message"] == "unauthenticated"
    assert body["status"] == "error"
    assert error.headers()["WWW-Authenticate"] == "Bearer"


def test_each_key_tells_its_client(file: Path) -> None:
    keys = {name: add_key(file, name) for name in ("first", "second", "third")}
    ring = KeyRing(file)
    for name, key in keys.items():
        assert ring.check(f"Bearer {key}") == Client(name)
        assert ring.check(f"bearer  {key} ") == Client(name)


def test_without_a_file_everyone_is_the_same_client() -> None:
    ring = KeyRing(None)
    for authorization in (None, "", "Bearer none", "Basic x"):
        assert ring.check(authorization) is ANONYMOUS


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "an API key is needed"),
        ("", "an API key is needed"),
        *((odd, "holds no API key") for odd in ("Bearer", "Bearer ", "x", "Basic a2V5", "Bearerx")),
        *(
            (odd, "holds no API key")
            for odd in ("Bearer a b", "Bearer\tx", " Bearer x", "Bearer ä")
        ),
        *(
            (odd, "holds no API key")
            for odd in ("Bearer =", "Bearer x,y", "Bearer a\n", "BearerBearer x")
        ),
        ("Bearer none", "not known"),
        ("Bearer tunery_" + "A" * 43, "not known"),
    ],
)
def test_without_a_known_key_nobody_is_let_in(
    file: Path, authorization: str | None, message: str
) -> None:
    key = add_key(file, "client")
    error = refusal(KeyRing(file), authorization)
    assert_unauthenticated(error, message)
    assert key not in error.message


def test_keys_that_are_nearly_right_are_unknown(file: Path) -> None:
    key = add_key(file, "client")
    ring = KeyRing(file)
    near = [key[:-1], key + "A", key.swapcase(), key.removeprefix("tunery_"), key[:-1] + "!"]
    for other in near:
        assert refusal(ring, f"Bearer {other}").status == 401
    entry = re.search(r'"sha256": "([0-9a-f]{64})"', file.read_text())
    assert entry is not None
    assert refusal(ring, f"Bearer {entry[1]}").status == 401  # what the file holds opens nothing


def test_a_key_that_was_removed_ends_at_once_and_a_new_one_begins(file: Path) -> None:
    first = add_key(file, "first")
    ring = KeyRing(file)
    second = add_key(file, "second")
    assert ring.check(f"Bearer {second}") == Client("second")
    remove_key(file, "first")
    assert_unauthenticated(refusal(ring, f"Bearer {first}"), "not known")
    assert ring.check(f"Bearer {second}") == Client("second")


def test_a_change_shows_that_keeps_size_and_time(file: Path) -> None:
    first = add_key(file, "one")
    before = file.stat()
    ring = KeyRing(file)
    remove_key(file, "one")
    second = add_key(file, "two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert ring.check(f"Bearer {second}") == Client("two")
    assert refusal(ring, f"Bearer {first}").status == 401


def _gone(file: Path) -> None:
    file.unlink()


def _cut(file: Path) -> None:
    file.write_text(file.read_text()[:-20])


def _without_hash(file: Path) -> None:
    file.write_text('{"keys": [{"name": "x", "created": "2026-01-01T00:00:00Z"}]}')


@pytest.mark.parametrize("spoil", [_gone, _cut, _without_hash])
def test_a_broken_file_keeps_the_former_keys_and_says_so_once(
    file: Path, spoil: "object", caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(file, "client")
    ring = KeyRing(file)
    assert callable(spoil)
    spoil(file)
    for _ in range(3):
        assert ring.check(f"Bearer {key}") == Client("client")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "the former API keys stay valid" in caplog.text
    assert key not in caplog.text
    file.unlink(missing_ok=True)
    other = add_key(file, "other")
    assert ring.check(f"Bearer {other}") == Client("other")
    assert refusal(ring, f"Bearer {key}").status == 401


@pytest.mark.parametrize("content", [None, "", "[]", '{"keys": 1}', '{"keyz": []}', "null"])
def test_a_file_that_is_broken_from_the_start_is_an_error_of_its_user(
    file: Path, content: str | None
) -> None:
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as caught:
        KeyRing(file)
    assert caught.value.where == str(file)


def test_an_empty_list_lets_nobody_in(file: Path) -> None:
    key = add_key(file, "client")
    remove_key(file, "client")
    assert refusal(KeyRing(file), f"Bearer {key}").status == 401


def test_keys_expire(file: Path) -> None:
    key = add_key(file, "client", expires_after_days=1)
    now = datetime.now(UTC)
    ring = KeyRing(file, now=lambda: now)
    assert ring.check(f"Bearer {key}") == Client("client")
    now += timedelta(days=1, seconds=2)
    assert_unauthenticated(refusal(ring, f"Bearer {key}"), "has expired")


def test_each_key_has_its_limit_and_is_told_when_to_come_back(file: Path) -> None:
    limited = add_key(file, "limited", requests_per_minute=2)
    other = add_key(file, "other", requests_per_minute=1)
    free = add_key(file, "free")
    clock = Clock()
    ring = KeyRing(file, limiter=RateLimiter(clock_ns=clock))
    for _ in range(2):
        assert ring.check(f"Bearer {limited}") == Client("limited")
    clock.now_ns = int(0.5 * NS_PER_S)
    error = refusal(ring, f"Bearer {limited}")
    assert error.status == 429
    assert error.type == "rate_limit_exceeded"
    assert "Rate limit exceeded" in error.message
    assert error.retry_after_s == 29.5
    assert error.headers()["Retry-After"] == "30"
    assert ring.check(f"Bearer {limited}", counted=False) == Client("limited")
    assert ring.check(f"Bearer {other}") == Client("other")
    for _ in range(100):
        assert ring.check(f"Bearer {free}") == Client("free")
    clock.now_ns += int(29.5 * NS_PER_S)
    assert ring.check(f"Bearer {limited}") == Client("limited")


def test_a_limit_outlives_a_change_of_the_file(file: Path) -> None:
    key = add_key(file, "limited", requests_per_minute=1)
    ring = KeyRing(file, limiter=RateLimiter(clock_ns=Clock()))
    ring.check(f"Bearer {key}")
    add_key(file, "other")
    assert refusal(ring, f"Bearer {key}").status == 429


def test_requests_without_a_key_count_towards_no_ones_limit(file: Path) -> None:
    key = add_key(file, "limited", requests_per_minute=1)
    ring = KeyRing(file, limiter=RateLimiter(clock_ns=Clock()))
    for authorization in (None, f"Bearer {key}x", f"Basic {key}"):
        assert refusal(ring, authorization).status == 401
    assert ring.check(f"Bearer {key}") == Client("limited")


@given(st.text())
def test_any_header_is_a_key_or_a_401(text: str) -> None:
    for header in (text, f"Bearer {text}"):
        try:
            key = parse_bearer(header)
        except ApiError as error:
            assert error.status == 401
        else:
            assert header.split(" ", 1)[0].lower() == "bearer"
            assert header.split(" ", 1)[1].strip(" ") == key
            assert key.isascii()
            assert not any(character.isspace() for character in key)


@given(st.binary(min_size=1), st.sampled_from(["Bearer", "bearer", "BEARER"]), st.integers(1, 3))
def test_every_key_of_the_standards_alphabets_is_read_whole(
    content: bytes, scheme: str, num_spaces: int
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        key = encode(content).decode()
        assert parse_bearer(scheme + " " * num_spaces + key) == key
