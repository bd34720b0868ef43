"""A server of two replicas, asked by clients while one is killed and while both are replaced."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from configs.serve_schema import ReplicasConfig
from serve.process import ServerProcess, start_interface
from tests.serve.conftest import START_TIMEOUT_S, one_model

LIMIT_S = 120.0
NUM_CLIENTS = 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="module")
def server(tiny_gguf: Path, log: Path) -> Iterator[ServerProcess]:
    replicas = ReplicasConfig(count=2, routing="least_loaded")
    settings = one_model(tiny_gguf, replicas=replicas)
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as started:
        yield started


class Clients:
    """Ask without a pause; answers: statuses, in the order in which they came."""

    def __init__(self, url: str, model: str) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._model = model
        self._stop = threading.Event()
        self.answers: list[httpx.Response] = []
        self.failures: list[Exception] = []

    def ask(self, number: int) -> None:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"the river {number}"}],
            "max_tokens": 8,
            "temperature": 0,
        }
        with httpx.Client(timeout=LIMIT_S) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(client.post(self._url, json=body))
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    return

    def wait_for(self, num_more: int) -> None:
        goal = len([one for one in self.answers if one.is_success]) + num_more
        until(lambda: len([one for one in self.answers if one.is_success]) >= goal)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self.ask, args=(number,)) for number in range(NUM_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(LIMIT_S)
                assert not thread.is_alive(), "a request hangs"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def model_of(server: ServerProcess) -> str:
    name: str = httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"]
    return name


def llama_pids(server: ServerProcess) -> set[int]:
    return {
        child.pid
        for child in psutil.Process(server.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "serve.llama_process" in child.cmdline()
    }


def test_both_replicas_are_replaced_without_a_failed_request(
    server: ServerProcess, log: Path
) -> None:
    before = llama_pids(server)
    assert len(before) == 2
    clients = Clients(server.url, model_of(server))
    with clients.asking():
        clients.wait_for(NUM_CLIENTS)
        os.kill(server.pid, signal.SIGUSR1)
        until(lambda: log.read_text().count("loaded anew") == 2)
        clients.wait_for(NUM_CLIENTS)
    assert not clients.failures
    assert {answer.status_code for answer in clients.answers} == {200}
    after = llama_pids(server)
    assert len(after) == 2
    assert not after & before


def test_one_replica_killed_loses_no_request_without_a_word(server: ServerProcess) -> None:
    clients = Clients(server.url, model_of(server))
    with clients.asking():
        clients.wait_for(NUM_CLIENTS)
        killed = min(llama_pids(server))
        os.kill(killed, signal.SIGKILL)
        clients.wait_for(NUM_CLIENTS)
        until(lambda: len(llama_pids(server) - {killed}) == 2)
        clients.wait_for(2 * NUM_CLIENTS)
    assert not clients.failures
    failed = [answer for answer in clients.answers if not answer.is_success]
    # At most what the killed one had begun, told as what it is.
    assert len(failed) <= 1
    assert all(answer.status_code == 503 for answer in failed), [one.text for one in failed]
    assert all("error" in answer.json() for answer in failed)
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
