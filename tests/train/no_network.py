"""For processes of tests: every try to reach an address is told on standard error, and fails."""

import sys

WATCHED_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
REACHED = "REACHES OUT"


def watch_network() -> None:
    """From here on, until the process ends."""
    sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in WATCHED_EVENTS:
        sys.stderr.write(f"{REACHED}: {event} {arguments}\n")
        raise OSError("the test has no network")
