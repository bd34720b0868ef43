"""Running the completion interface as a process: port, readiness, and an end without a trace.

`main` is what the evaluation's child processes run; the command calls `run_server` itself.
"""

import asyncio
import errno
import gc
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from configs.errors import UserError
from serve.app import build_app
from serve.assemble import build_service
from serve.request_log import configure_logging
from serve.service import Service
from serve.settings import ServerSettings

logger = logging.getLogger(__name__)

LAST_WORDS_S = 2
"""How long answers that were broken off get to send their last event."""

LISTEN_BACKLOG = 128
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_server(
    settings: ServerSettings,
    *,
    on_ready: Callable[[str], None],
    ready_file: Path | None = None,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then return; call it from the main thread.

    The port is taken before the models are loaded; port 0 takes a free one. While they load, all
    requests but probes get 503. SIGUSR1 has replicas load their files anew, one after the other, so
    that a variant that was merged again is served without a refused request.

    on_ready: called with the server's address, such as `http://127.0.0.1:8000`, once it answers;
    ready_file: then holds `{"url": …, "pid": …}`, and is removed at the end; until_stdin_closes:
    end as if by SIGTERM when standard input ends, which ties this process to the one that holds the
    other end, however that one ends. A stop lets running requests end, for `serve.drain_s` seconds;
    a second one does not. Raises `UserError` when the address cannot be had or a model cannot be
    loaded.
    """
    serve = settings.serve
    service = build_service(settings)
    asks_for_keys = serve.api_keys_path is not None
    with _listening_socket(serve.host, serve.port, asks_for_keys=asks_for_keys) as listener:
        url = _address(listener)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        if until_stdin_closes:
            threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()

        def ready() -> None:
            if ready_file is not None:
                _write_atomically(ready_file, json.dumps({"url": url, "pid": os.getpid()}))
            on_ready(url)

        server = _Server(service, drain_s=serve.drain_s)
        try:
            with (
                _signal_handlers(server.handle_exit),
                asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner,
            ):
                runner.run(server.run_until_stopped(listener, ready))
        finally:
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Uvicorn that answers while the engines load, and drains before it stops."""

    def __init__(self, service: Service, *, drain_s: float) -> None:
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
        logging.getLogger("asyncio").addFilter(_is_no_write_to_a_client_that_left)
        super().__init__(
            uvicorn.Config(
                build_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=LAST_WORDS_S,
            )
        )
        self._service = service
        self._drain_s = drain_s
        self._stop_asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def run_until_stopped(
        self, listener: socket.socket, on_ready: Callable[[], None]
    ) -> None:
        """Serve on a socket that listens; on_ready: called once the engines have loaded."""
        self._loop = asyncio.get_running_loop()
        if self._service.renew is not None and hasattr(signal, "SIGUSR1"):
            self._loop.add_signal_handler(signal.SIGUSR1, self._ask_for_renewal)
        serving = asyncio.ensure_future(self.serve(sockets=[listener]))
        stopping = asyncio.ensure_future(self._drain_once_asked())
        loading = asyncio.ensure_future(self._service.start())
        try:
            await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                # What is here now stays: no request should pay for looking through it.
                gc.collect()
                gc.freeze()
                on_ready()
            await serving
        finally:
            self.should_exit = True
            loading.cancel()
            stopping.cancel()
            tasks = [serving, loading, stopping]
            if self._renewal is not None:
                self._renewal.cancel()
                tasks.append(self._renewal)
            await self._service.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; stop at the second."""
        if self._service.draining:
            self.should_exit = True
        self._service.draining = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_asked.set)

    def _ask_for_renewal(self) -> None:
        """Have the replicas replaced; a signal that comes meanwhile changes nothing."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        assert self._service.renew is not None
        try:
            await self._service.renew()
        except UserError as error:
            logger.error("the replicas that are left answer as before: %s", error)

    async def _drain_once_asked(self) -> None:
        await self._stop_asked.wait()
        await self._service.drain(self._drain_s)
        # What still runs ends here, with an error that says why, rather than in silence.
        await self._service.close()
        self.should_exit = True


def _is_no_write_to_a_client_that_left(record: logging.LogRecord) -> bool:
    """asyncio warns of words that were under way to a client that has hung up: not a fault."""
    return record.msg != "socket.send() raised exception."


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Uvicorn logs a traceback for each request that outlives the grace period: not a fault."""
    return "CancelledError" not in str(record.exc_info and record.exc_info[0])


@contextmanager
def _listening_socket(host: str, port: int, *, asks_for_keys: bool) -> Iterator[socket.socket]:
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
        if not (asks_for_keys or ip_address(listener.getsockname()[0]).is_loopback):
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


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    settings: Annotated[Path, typer.Argument(help="JSON file of `serve.settings`.")],
    ready_file: Annotated[
        Path | None, typer.Option(help="File to write address and process id to, once ready.")
    ] = None,
    until_stdin_closes: Annotated[
        bool, typer.Option(help="Stop when standard input ends.")
    ] = False,
) -> None:
    """Serve what a settings file names behind the chat interface until Ctrl-C."""
    configure_logging()
    try:
        told = ServerSettings.model_validate_json(settings.read_bytes())
        names = ", ".join(variant.name for variant in told.variants)
        run_server(
            told,
            on_ready=lambda url: typer.echo(f"{names} answers at {url}/v1 (Ctrl-C ends it)"),
            ready_file=ready_file,
            until_stdin_closes=until_stdin_closes,
        )
    except UserError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
