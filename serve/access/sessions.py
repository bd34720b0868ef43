"""Browsers that may open reports: a link carries no API key, so a cookie stands for one."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from serve.access.keys import KeyRing

LIFETIME_S = 12 * 3600.0
MAX_SESSIONS = 1000
TOKEN_BYTES = 32


class Sessions:
    """Random tokens, and the `Authorization` header that each stands for; kept in memory alone.

    A token is as good as its key: the key ring is to be asked at each use, so that a key that was
    removed ends its sessions too. now: seconds of a clock that never goes back.
    """

    def __init__(self, keys: KeyRing, *, now: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._now = now
        # By token, the oldest first.
        self._opened: OrderedDict[str, tuple[float, str | None]] = OrderedDict()

    def open(self, authorization: str | None) -> str:
        """A new token for who sent this header; raises `ApiError` (401) where it may not enter.

        The oldest session ends where there are `MAX_SESSIONS`.
        """
        self._keys.check(authorization, counted=False)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._opened[token] = self._now(), authorization
        while len(self._opened) > MAX_SESSIONS:
            self._opened.popitem(last=False)
        return token

    def authorization_of(self, token: str) -> str | None:
        """The header that a token stands for; None for one that is unknown or older than 12 h."""
        opened, authorization = self._opened.get(token, (0.0, None))
        if self._now() - opened > LIFETIME_S:
            self._opened.pop(token, None)
            return None
        return authorization
