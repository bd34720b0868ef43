"""How the server process begins and ends."""

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from configs.errors import UserError
from serve.engine import Engine
from serve.server import _is_no_write_to_a_client_that_left, run_server


def load_nothing() -> Engine:
    raise AssertionError("the model must not be loaded before the port is had")


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A serve process and its address, once it is ready."""
    ready_file = folder / "ready.json"
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready_file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not ready_file.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        assert ready["pid"] == process.pid
        yield process, ready["url"]
        assert not ready_file.exists(), "the ready file must go with the server"
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_a_user_error_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as error:
            run_server(
                load_nothing,
                model_names=["tiny"],
                host="127.0.0.1",
                port=port,
                on_ready=lambda url: None,
            )
    assert "already in use" in error.value.what
    assert error.value.where == f"http://127.0.0.1:{port}"
    assert "--port 0" in str(error.value.remedy)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_a_user_error(host: str) -> None:
    with pytest.raises(UserError) as error:
        run_server(load_nothing, model_names=["tiny"], host=host, port=0, on_ready=lambda url: None)
    assert host in str(error.value.where)
    assert "127.0.0.1" in str(error.value.remedy)


def test_the_command_prints_a_user_error_and_ends_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve.server", "--model", str(tmp_path / "none.gguf")]
    result = subprocess.run(
        [*command, "--name", "tiny", "--port", "0"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("the model file does not exist\n  where: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_server_at_once_without_a_trace(
    serve_command: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    with running(serve_command, tmp_path) as (process, url), httpx.Client() as client:
        assert client.get(f"{url}/health").status_code == 200  # and the connection stays open
        process.send_signal(number)
        asked = time.monotonic()
        output, _ = process.communicate(timeout=10)
        assert time.monotonic() - asked < 2
    assert process.returncode == 0
    assert output == f"tiny answers at {url}/v1 (Ctrl-C ends it)\n"


def test_a_stop_lets_running_answers_end_and_cuts_endless_ones(
    serve_command: list[str], tmp_path: Path
) -> None:
    question = {"model": "tiny", "messages": [{"role": "user", "content": "the river"}]}
    content = question | {"temperature": 0, "stream": True}
    two_slots = [*serve_command, "--slots", "2"]
    with running(two_slots, tmp_path) as (process, url), httpx.Client(timeout=30) as client:
        address = f"{url}/v1/chat/completions"
        with (
            client.stream("POST", address, json=content | {"max_tokens": 600}) as short,
            client.stream("POST", address, json=content) as endless,
        ):
            short_lines, endless_lines = short.iter_lines(), endless.iter_lines()
            next(short_lines)
            next(endless_lines)
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            assert [line for line in short_lines if line][-1] == "data: [DONE]"
            with pytest.raises(httpx.RemoteProtocolError):
                list(endless_lines)
        output, _ = process.communicate(timeout=10)
        assert 4 < time.monotonic() - asked < 7, "the grace period is five seconds"
    assert process.returncode == 0
    assert "Traceback" not in output


def test_a_stop_while_the_server_starts_ends_it(serve_command: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        serve_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in output


async def write_to_a_client_that_left() -> None:
    server, client = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=server)
    client.close()
    for _ in range(20):
        transport.write(b"data")
    transport.close()


def test_a_client_that_hangs_up_leaves_no_trace_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asyncio.run(write_to_a_client_that_left())
    assert caplog.messages, "asyncio warns as it did when the filter was written"
    caplog.clear()
    asyncio_logger = logging.getLogger("asyncio")
    asyncio_logger.addFilter(_is_no_write_to_a_client_that_left)
    try:
        asyncio.run(write_to_a_client_that_left())
        asyncio_logger.warning("something else")
    finally:
        asyncio_logger.removeFilter(_is_no_write_to_a_client_that_left)
    assert caplog.messages == ["something else"]
