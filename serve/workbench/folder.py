"""What the workbench shows and keeps besides the models: runs, their reports and samples, votes."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from configs.serve_schema import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Where the page finds and keeps things; what is None, it does without.

    runs_folder: holds the run directories that are shown; served: names of those whose variants
    answer here; votes_file: JSON Lines of `data.votes`.
    """

    runs_folder: Path | None
    served: Sequence[str]
    votes_file: Path | None


def has_workbench(config: ServeConfig) -> bool:
    """Whether the page is served: not to strangers, unless the configuration says so."""
    if config.workbench is not None:
        return config.workbench
    return config.api_keys_path is not None or is_loopback(config.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there; unknown names count as not."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
