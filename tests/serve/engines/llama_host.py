"""llama.cpp's own HTTP interface on a loopback port: a real host that speaks OpenAI's wire."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
import xllamacpp


def open_llama_http(
    model: Path, *, address: str, port: int, key: str, context_length: int, num_slots: int
) -> xllamacpp.Server:
    """Serve a GGUF; address: an IP, or the path of a unix socket."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = [address]
    params.port = port
    params.api_keys = [key]
    params.n_ctx = context_length * num_slots
    params.n_parallel = num_slots
    params.n_batch = params.n_ubatch = 64
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0
    params.use_jinja = True
    params.ui = False
    params.verbosity = 1
    # Its own samplers are off, as other hosts have them.
    params.sampling.top_k = 0
    params.sampling.min_p = 0.0
    return xllamacpp.Server(params)


def main(
    model: Annotated[Path, typer.Argument()],
    ready_file: Annotated[Path, typer.Option()],
    key: Annotated[str, typer.Option()],
    port: Annotated[int, typer.Option()] = 0,
    context: Annotated[int, typer.Option()] = 1024,
    slots: Annotated[int, typer.Option()] = 2,
    until_stdin_closes: Annotated[bool, typer.Option()] = True,
) -> None:
    """Answer until standard input ends, as `serve.process.start_server` wants it."""
    server = open_llama_http(
        model, address="127.0.0.1", port=port, key=key, context_length=context, num_slots=slots
    )
    partial = ready_file.with_suffix(".partial")
    partial.write_text(json.dumps({"url": server.listening_address, "pid": os.getpid()}))
    partial.replace(ready_file)
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    typer.run(main)
