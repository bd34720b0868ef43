"""Private folders for the sockets by which engines are reached."""

import tempfile
from pathlib import Path

MAX_FOLDER_CHARS = 80
"""A socket's path may have 104 to 108 bytes, by system; its name needs some of them."""
SHORT_FOLDER = "/tmp"  # noqa: S108 (the folder in it is made anew, and for this user alone)


def make_socket_folder() -> Path:
    """A new folder that only this user can enter; whoever asks for it removes it.

    In the system's temporary folder, or in /tmp where that one's path is too long for sockets.
    """
    usual = tempfile.gettempdir()
    is_short = len(usual.encode()) <= MAX_FOLDER_CHARS
    return Path(tempfile.mkdtemp(prefix="tunery-", dir=usual if is_short else SHORT_FOLDER))
