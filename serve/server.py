"""Running the completion interface as a process: port, readiness, and an end without a trace.

`main` is what `python -m serve.server` and the evaluation's child processes run; the command
calls `run_server` with the same arguments.
"""

import errno
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from configs.errors import UserError
from serve.app import build_app
from serve.engine import Engine
from serve.llama_engine import LlamaCppEngine, default_num_threads

logger = logging.getLogger(__name__)

GRACE_S = 5
"""How long running requests may go on after the request to stop."""

LISTEN_BACKLOG = 128
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_server(
    load_engine: Callable[[], Engine],
    *,
    model_names: Sequence[str],
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    ready_file: Path | None = None,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then return; call it from the main thread.

    The port is taken before the model is loaded; port 0 takes a free one. Clients that connect
    while the model loads wait for it. on_ready: called with the server's address, such as
    `http://127.0.0.1:8000`, once it answers; ready_file: then holds `{"url": …, "pid": …}`, and is
    removed at the end; until_stdin_closes: end as if by SIGTERM when standard input ends, which
    ties this process to the one that holds the other end, however that one ends. A stop leaves
    running requests `GRACE_S` seconds. Raises `UserError` when the address cannot be had or the
    model cannot be loaded.
    """
    with _listening_socket(host, port) as listener:
        url = _address(listener)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        if until_stdin_closes:
            threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()

        def ready() -> None:
            if ready_file is not None:
                _write_atomically(ready_file, json.dumps({"url": url, "pid": os.getpid()}))
            on_ready(url)

        # The model is loaded while C++ code keeps the interpreter: no handler of ours could run.
        with _signal_handlers(signal.SIG_DFL):
            engine = load_engine()
        try:
            server = _Server(build_app(engine=engine, model_names=model_names), ready)
            with _signal_handlers(server.handle_exit):
                server.run(sockets=[listener])
        finally:
            engine.close()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Uvicorn with our settings, telling when it has begun to answer."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
        logging.getLogger("asyncio").addFilter(_is_no_write_to_a_client_that_left)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        await super().startup(sockets)
        self._on_ready()


def _is_no_write_to_a_client_that_left(record: logging.LogRecord) -> bool:
    """asyncio warns of words that were under way to a client that has hung up: not a fault."""
    return record.msg != "socket.send() raised exception."


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Uvicorn logs a traceback for each request that outlives the grace period: not a fault."""
    return "CancelledError" not in str(record.exc_info and record.exc_info[0])


@contextmanager
def _listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at once, so that a port in use shows before the model is loaded."""
    where = f"http://{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(
            f"{host!r} is no address of this machine: {error.strerror}",
            where=where,
            remedy="give `--host 127.0.0.1`, or `--host 0.0.0.0` for all interfaces",
        ) from error
    with listener:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(LISTEN_BACKLOG)
        except OSError as error:
            raise _cannot_listen(error, where) from error
        if not ip_address(listener.getsockname()[0]).is_loopback:
            logger.warning("%s can be reached from other machines, and asks for no key", where)
        yield listener


def _cannot_listen(error: OSError, where: str) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(
            "the port is already in use",
            where=where,
            remedy="give another `--port`, or `--port 0` to take a free one",
        )
    return UserError(
        f"cannot listen there: {error.strerror}",
        where=where,
        remedy="give a `--port` above 1023 and a `--host` of this machine, such as 127.0.0.1",
    )


def _address(listener: socket.socket) -> str:
    """The URL under which a client on this machine reaches the listening socket."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _signal_handlers(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> Iterator[None]:
    """Have `handler` take the signals that ask for a stop; the former ones come back after."""
    former = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


def _stop_at_end_of_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _write_atomically(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def main(
    model: Annotated[Path, typer.Option(help="GGUF file to serve.")],
    name: Annotated[str, typer.Option(help="Model name that requests give.")],
    alias: Annotated[list[str] | None, typer.Option(help="Further model name; repeatable.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    threads: Annotated[
        int | None, typer.Option(help="llama.cpp's threads; one fewer than the cores.", min=1)
    ] = None,
    context: Annotated[
        int, typer.Option(help="Tokens of prompt and answer together, per request.", min=1)
    ] = 2048,
    slots: Annotated[int, typer.Option(help="Requests answered at the same time.", min=1)] = 1,
    ready_file: Annotated[
        Path | None, typer.Option(help="File to write address and process id to, once ready.")
    ] = None,
    until_stdin_closes: Annotated[
        bool, typer.Option(help="Stop when standard input ends.")
    ] = False,
) -> None:
    """Serve a GGUF model behind the chat interface until Ctrl-C."""

    def load_engine() -> Engine:
        return LlamaCppEngine(
            model,
            num_threads=threads or default_num_threads(),
            context_length=context,
            num_slots=slots,
        )

    try:
        run_server(
            load_engine,
            model_names=[name, *(alias or [])],
            host=host,
            port=port,
            on_ready=lambda url: typer.echo(f"{name} answers at {url}/v1 (Ctrl-C ends it)"),
            ready_file=ready_file,
            until_stdin_closes=until_stdin_closes,
        )
    except UserError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
