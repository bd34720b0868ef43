"""The file that says who may ask: names, hashes of keys, and limits, never a key itself."""

import hashlib
import json
import os
import secrets
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from configs.errors import UserError
from configs.section import Section

KEY_PREFIX = "tunery_"
"""By which people, and scanners for leaked secrets, know a key for what it is."""
KEY_BYTES = 32

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"


class KeyEntry(Section):
    """Who holds a key, and on what terms."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    """Name of the client, in logs and where requests are split by client."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Hash of the key, hex."""
    created: AwareDatetime
    """When the key was made."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Completions it may ask for; no limit when absent."""
    expires: AwareDatetime | None = None
    """When it ends; never when absent."""

    def is_expired(self, now: datetime) -> bool:
        """Whether the key has ended."""
        return self.expires is not None and now >= self.expires


class KeyFile(Section):
    """All who may ask."""

    keys: tuple[KeyEntry, ...] = Field(default=(), strict=False)
    """One entry a client."""

    @model_validator(mode="after")
    def _check_names_differ(self) -> Self:
        names = [entry.name for entry in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name")
        return self


def make_key() -> str:
    """A new key: 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_key(key: str) -> str:
    """What the file holds of a key, hex.

    A plain hash is enough: slow ones protect passwords, which can be guessed, and nobody finds 256
    random bits by guessing. It is also quick enough to be taken of every request's key.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> KeyFile:
    """The file's content, or a `UserError` for one that is not there or not whole."""
    try:
        return KeyFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"the file of API keys cannot be read: {error.strerror}",
            where=file,
            remedy="make it with `tunery keys add`, as the user that serves",
        ) from error
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise UserError(
            f"the file of API keys is broken: {place or 'the whole'}: {fault['msg']}",
            where=file,
            remedy="mend that place, or remove the file and add the keys anew",
        ) from error


def write_keys(file: Path, keys: KeyFile) -> None:
    """Replace the file by one that only its owner can read; readers see the old or the new one.

    The owner stays the same, so that root may change what another user's server reads. Raises
    OSError.
    """
    text = json.dumps(keys.model_dump(mode="json", exclude_none=True), indent=2) + "\n"
    descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
            if file.exists():
                os.fchown(descriptor, file.stat().st_uid, file.stat().st_gid)
        Path(partial).replace(file)
    except BaseException:
        Path(partial).unlink()
        raise
