"""A random model, and one server of it that all tests of a session ask over real HTTP."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from serve.process import start_server
from tests.serve.tiny_llama import build_tiny_gguf

MODEL = "tiny"
ALIAS = "owner/tiny-alias"


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def serve_command(tiny_gguf: Path) -> list[str]:
    """Serves the random model on a free port, with one thread and one slot."""
    command = [sys.executable, "-m", "serve.server", "--model", str(tiny_gguf), "--name", MODEL]
    return [*command, "--port", "0", "--threads", "1", "--context", "8192"]


@pytest.fixture(scope="session")
def server_url(serve_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with start_server([*serve_command, "--alias", ALIAS], timeout_s=60, log=log) as server:
        yield server.url
    said = log.read_text()
    assert said == f"{MODEL} answers at {server.url}/v1 (Ctrl-C ends it)\n", said


@pytest.fixture
def http(server_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server_url, timeout=30) as client:
        yield client


@pytest.fixture(params=["/v1", "/api/ai"])
def openai_client(server_url: str, request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """The plain OpenAI client, on both of the interface's paths."""
    with OpenAI(base_url=server_url + request.param, api_key="none", max_retries=0) as client:
        yield client
