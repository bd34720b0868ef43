"""Who a request comes from, by the API key that it carries."""

import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from configs.errors import UserError
from serve.access.key_file import KeyEntry, KeyFile, hash_key, read_keys
from serve.access.rate_limit import RateLimiter
from serve.errors import rate_limited, unauthenticated

# RFC 6750, 2.1; schemes are told apart without regard to case.
BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*) *")
HOW_TO = "send it as `Authorization: Bearer KEY`"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """Who asks. name: what logs say, and what a split of the clients sticks to."""

    name: str


ANONYMOUS = Client("anonymous")
"""Everyone, where no keys are asked for."""


class KeyRing:
    """The keys of a file, which is looked at before each request: a removed key ends at once.

    file: as `tunery keys` writes it; without one everyone is `ANONYMOUS`. A file that is broken or
    gone when it changes leaves the former keys as they were, and an error in the log. Raises
    `UserError` when it is so from the start.
    """

    def __init__(
        self,
        file: Path | None,
        *,
        limiter: RateLimiter | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._file = file
        self._limiter = limiter or RateLimiter()
        self._now = now
        # Taken before the file is read: a change in between is found at the next look.
        self._stamp = self._look()
        self._keys = KeyFile() if file is None else read_keys(file)

    @property
    def asks_for_keys(self) -> bool:
        """Whether nobody is let in without a key."""
        return self._file is not None

    def check(self, authorization: str | None, *, counted: bool = True) -> Client:
        """Who sent a request with this `Authorization` header.

        counted: towards its key's limit. Raises `ApiError`: 401 without a key that is known, 429
        for one request too many.
        """
        if self._file is None:
            return ANONYMOUS
        self._refresh()
        entry = self._find(hash_key(parse_bearer(authorization)))
        if entry is None:
            raise unauthenticated("this API key is not known here")
        if entry.is_expired(self._now()):
            raise unauthenticated("this API key has expired")
        if counted and entry.requests_per_minute is not None:
            self._count(entry, entry.requests_per_minute)
        return Client(entry.name)

    def _count(self, entry: KeyEntry, per_minute: int) -> None:
        wait_s = self._limiter.take(entry.name, per_minute=per_minute)
        if wait_s > 0:
            raise rate_limited(
                f"Rate limit exceeded: this API key may make {per_minute} requests a minute",
                retry_after_s=wait_s,
            )

    def _find(self, sha256: str) -> KeyEntry | None:
        """The entry with that hash; how long it takes tells neither which one, nor how near."""
        found = None
        for entry in self._keys.keys:
            if hmac.compare_digest(entry.sha256, sha256):
                found = entry
        return found

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp or self._file is None:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._file)
        except UserError as error:
            logger.error("the former API keys stay valid, because %s", error)
            return
        self._limiter.keep({entry.name for entry in self._keys.keys})
        logger.info("%d API keys read anew", len(self._keys.keys))

    def _look(self) -> tuple[int, int, int] | None:
        """What changes with the file; None where there is none."""
        try:
            status = self._file.stat() if self._file else None
        except OSError:
            return None
        return status and (status.st_ino, status.st_ctime_ns, status.st_size)


def parse_bearer(authorization: str | None) -> str:
    """The key in an `Authorization` header; raises `ApiError` (401) where there is none."""
    if not authorization:
        raise unauthenticated(f"an API key is needed: {HOW_TO}")
    match = BEARER.fullmatch(authorization)
    if match is None:
        raise unauthenticated(f"the Authorization header holds no API key: {HOW_TO}")
    return match[1]
