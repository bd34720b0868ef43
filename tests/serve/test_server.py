"""How the server process begins and ends."""

import asyncio
import json
import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from configs.errors import UserError
from serve.server import _is_no_write_to_a_client_that_left, run_server
from tests.serve.conftest import command_of, one_model


def fail(url: str) -> None:
    raise AssertionError("the server must not be ready")


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


def test_a_port_in_use_is_a_user_error_before_the_model_is_loaded(tiny_gguf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as error:
            run_server(one_model(tiny_gguf, port=port), on_ready=fail)
    assert "already in use" in error.value.what
    assert error.value.where == f"http://127.0.0.1:{port}"
    assert "--port 0" in str(error.value.remedy)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_a_user_error(host: str, tiny_gguf: Path) -> None:
    with pytest.raises(UserError) as error:
        run_server(one_model(tiny_gguf, host=host), on_ready=fail)
    assert host in str(error.value.where)
    assert "127.0.0.1" in str(error.value.remedy)


def test_the_command_prints_a_user_error_and_ends_with_one(tmp_path: Path) -> None:
    command = command_of(one_model(tmp_path / "none.gguf"), tmp_path)
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "the model file does not exist\n  where: " in result.stderr
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
    assert f"tiny answers at {url}/v1 (Ctrl-C ends it)\n" in output
    assert "Traceback" not in output


def test_a_stop_lets_running_answers_end_refuses_new_ones_and_cuts_endless_ones(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    question = {"model": "tiny", "messages": [{"role": "user", "content": "the river"}]}
    content = question | {"temperature": 0, "stream": True}
    command = command_of(one_model(tiny_gguf, num_slots=2, drain_s=3.0), tmp_path)
    with running(command, tmp_path) as (process, url), httpx.Client(timeout=30) as client:
        address = f"{url}/v1/chat/completions"
        with (
            client.stream("POST", address, json=content | {"max_tokens": 300}) as short,
            client.stream("POST", address, json=content) as endless,
        ):
            short_lines, endless_lines = short.iter_lines(), endless.iter_lines()
            next(short_lines)
            next(endless_lines)
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            wait_until(lambda: client.get(f"{url}/health/ready").status_code == 503)
            assert client.get(f"{url}/health/live").status_code == 200
            refused = client.post(address, json=question)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert "stopping" in refused.json()["error"]["message"]
            assert [line for line in short_lines if line][-1] == "data: [DONE]"
            last = [line for line in endless_lines if line][-1]
            assert json.loads(last.removeprefix("data: "))["status"] == "error"
        output, _ = process.communicate(timeout=10)
        assert 2.5 < time.monotonic() - asked < 5, "running answers have three seconds"
    assert process.returncode == 0
    assert "Traceback" not in output


def test_a_second_signal_does_not_wait(tiny_gguf: Path, tmp_path: Path) -> None:
    question = {"model": "tiny", "messages": [{"role": "user", "content": "the river"}]}
    content = question | {"temperature": 0}  # a greedy answer of this model does not end
    command = command_of(one_model(tiny_gguf, drain_s=60.0), tmp_path)
    with running(command, tmp_path) as (process, url), httpx.Client(timeout=30) as client:
        address = f"{url}/v1/chat/completions"
        with client.stream("POST", address, json=content | {"stream": True}) as endless:
            next(endless.iter_lines())
            [engine] = psutil.Process(process.pid).children()
            engine.suspend()  # or the answer would end by itself, at the context's end
            process.send_signal(signal.SIGINT)
            wait_until(lambda: client.get(f"{url}/health/ready").status_code == 503)
            process.send_signal(signal.SIGINT)
            process.wait(5)
    assert process.returncode == 0


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
