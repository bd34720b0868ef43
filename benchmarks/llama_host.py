"""llama.cpp's own HTTP server on a loopback port, with nothing of ours around it.

    python -m benchmarks.llama_host MODEL.gguf --slots 8 [options of `serve.process.start_server`]

What the benchmarks of serving call "the engine itself"; it loads the model with the settings that
`tunery serve` gives it.
"""

import json
import os
import socket
from pathlib import Path
from typing import Annotated

import typer
import xllamacpp

from serve.llama_loading import build_parameters


def main(
    model: Annotated[Path, typer.Argument(help="GGUF file.")],
    ready_file: Annotated[Path, typer.Option(help="File to write once the model is loaded.")],
    slots: Annotated[int, typer.Option(help="Requests answered at the same time.")] = 1,
    context: Annotated[int, typer.Option(help="Tokens of prompt and answer together.")] = 2048,
    until_stdin_closes: Annotated[bool, typer.Option(help="Always so.")] = True,
) -> None:
    """Answer until standard input ends."""
    params = build_parameters(model, num_threads=1, context_length=context, num_slots=slots)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    params.hostnames = ["127.0.0.1"]
    params.port = port
    server = xllamacpp.Server(params)
    partial = ready_file.with_suffix(".partial")
    partial.write_text(json.dumps({"url": server.listening_address, "pid": os.getpid()}))
    partial.replace(ready_file)
    while os.read(0, 1024):
        pass


if __name__ == "__main__":
    typer.run(main)
