"""The exceptions that the command turns into a message without a traceback."""

import errno
from functools import partial
from pathlib import Path


class UserError(Exception):
    """Something that the person at the keyboard can mend.

    what: what was wrong, as a sentence; where: the file (with line or key), row or address;
    remedy: what to do about it. Faults of Tunery itself are never raised as this class.
    """

    def __init__(
        self, what: str, *, where: str | Path | None = None, remedy: str | None = None
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(what, where, remedy)

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes send it back by pickle, which would give all three by position.
        return partial(UserError, where=self.where, remedy=self.remedy), (self.what,)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.remedy:
            parts.append(f"  to do: {self.remedy}")
        return "\n".join(parts)


class Interrupted(BaseException):
    """The process was asked to end (SIGTERM): no fault, and the same command goes on from there.

    A `BaseException` as `KeyboardInterrupt` is, so that no library's `except Exception` swallows
    it. The command ends with `INTERRUPTED_STATUS`, so that a queue knows to start it again.
    """


# EX_TEMPFAIL of sysexits.h: a temporary failure, to be tried again.
INTERRUPTED_STATUS = 75


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a failed write is behind `error`; safetensors and torch tell it in words alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(sign in str(error) for sign in ("No space left", "os error 28", "os error 27")):
            return True
        error = error.__cause__ or error.__context__
    return False
