"""llama.cpp in a process of its own, reached by llama.cpp's own interface.

The interpreter of the caller is not held, the model's memory is free when the block ends, and a
crash of the C++ code is an error like any other. Loaded as for serving: what is measured is served.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import typer

from configs.errors import UserError
from serve.llama_loading import Door, check_files, connect, load_llama_server, new_door
from serve.process import NUM_LOG_LINES, start_server

LOAD_TIMEOUT_S = 1800.0
"""A 24B model from a slow disk takes minutes."""
KEY_FILE = "key"


class LlamaProcess(NamedTuple):
    """llama.cpp that answers. http: its own interface; log: all that it has said."""

    http: httpx.Client
    log: Path
    pid: int


@contextmanager
def open_llama(
    file: Path,
    *,
    num_threads: int,
    context_length: int,
    mmproj: Path | None = None,
    lora: Path | None = None,
) -> Iterator[LlamaProcess]:
    """Load a GGUF in a child process and yield once it answers; the child ends with the block.

    Arguments as those of `load_llama_server`. Raises `UserError` when a file is missing or is no
    usable GGUF, with the last lines that llama.cpp said.
    """
    check_files(file, mmproj=mmproj, lora=lora)
    with ExitStack() as stack:
        door = stack.enter_context(new_door())
        folder = door.socket.parent
        (folder / KEY_FILE).write_text(door.key, encoding="ascii")
        log = folder / "llama.log"
        command = [sys.executable, "-P", "-m", "serve.llama_process", str(file), str(door.socket)]
        command += ["--threads", str(num_threads), "--context", str(context_length)]
        for option, path in (("--mmproj", mmproj), ("--lora", lora)):
            command += [option, str(path)] if path is not None else []
        try:
            server = stack.enter_context(start_server(command, timeout_s=LOAD_TIMEOUT_S, log=log))
        except UserError as error:
            raise UserError(
                f"llama.cpp could not load the model: {error.what}",
                where=file,
                remedy="check that the file is whole and that there is memory for it",
            ) from error
        yield LlamaProcess(stack.enter_context(connect(door)), log, server.pid)


def last_words(log: Path) -> str:
    """The last lines of a log, indented for an error."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LOG_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


def main(
    model: Annotated[Path, typer.Argument(help="GGUF file.")],
    socket: Annotated[Path, typer.Argument(help="Where to listen; its key is in the file beside.")],
    threads: Annotated[int, typer.Option(help="llama.cpp's threads.")],
    context: Annotated[int, typer.Option(help="Tokens of prompt and answer together.")],
    ready_file: Annotated[Path, typer.Option(help="File to write once the model is loaded.")],
    slots: Annotated[int, typer.Option(help="Requests answered at the same time.")] = 1,
    mmproj: Annotated[Path | None, typer.Option(help="GGUF of the vision tower.")] = None,
    lora: Annotated[Path | None, typer.Option(help="GGUF of an adapter.")] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="GGUF of an adapter that requests may choose.")
    ] = None,
    until_stdin_closes: Annotated[bool, typer.Option(help="Always so.")] = True,
) -> None:
    """Answer on a private socket until standard input ends, and take the socket's folder along."""
    key = (socket.parent / KEY_FILE).read_text(encoding="ascii")
    try:
        loaded = load_llama_server(
            model,
            num_threads=threads,
            context_length=context,
            num_slots=slots,
            mmproj=mmproj,
            lora=lora,
            adapters=adapter or (),
            door=Door(socket, key),
        )
    except UserError as error:
        typer.echo(error.what, err=True)
        raise typer.Exit(1) from error
    partial = ready_file.with_suffix(".partial")
    partial.write_text(json.dumps({"url": loaded.server.listening_address, "pid": os.getpid()}))
    partial.replace(ready_file)
    while os.read(0, 1024):
        pass
    # Whoever made it may have been killed.
    shutil.rmtree(socket.parent, ignore_errors=True)


if __name__ == "__main__":
    typer.run(main)
