"""Asks in a process of its own, so that it can be killed and watched.

Arguments: the host's address, the log folder, the number of questions, and a file for the files,
folders and sockets that the process opened for writing. Prints one line for each answer.
"""

import logging
import os
import sys
from pathlib import Path

from evals.asking import ask
from evals.targets import Target
from evals.tasks import build_inspect_task
from tests.evals.conftest import chapter_task

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(opened: list[str]) -> None:
    """Note every file opened for writing, every folder made and every connection."""

    def note(event: str, args: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITE_FLAGS
        if writes or event in ("os.mkdir", "os.rename", "sqlite3.connect"):
            opened.append(f"file {args[0]}")
        elif event == "socket.connect":
            opened.append(f"socket {args[1]}")

    sys.addaudithook(note)


def main() -> None:
    base_url, log_dir, num_questions, notes = sys.argv[1:]
    opened: list[str] = []
    watch(opened)
    logging.basicConfig(level=logging.INFO)
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    answers = ask(
        Target("variant", base_url, "variant", api_key="sk-secret"),
        [build_inspect_task(chapter_task(0, int(num_questions)))],
        log_dir=Path(log_dir),
        max_connections=1,
        progress=lambda num_done, num_all: print(f"{num_done}/{num_all}", flush=True),
    )
    num_correct = sum(answer.score == 1 for answer in answers["chapters"])
    print(f"correct {num_correct}", flush=True)
    assert (root.level, root.handlers) == before, "the process's own logging was changed"
    Path(notes).write_text("\n".join(opened))


if __name__ == "__main__":
    main()
