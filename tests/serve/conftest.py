"""A random model, and one server of it that all tests of a session ask over real HTTP."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from configs.serve_schema import ServeConfig
from serve.process import start_interface
from serve.settings import ServedVariant, ServerSettings
from tests.serve.tiny_llama import build_tiny_gguf

MODEL = "tiny"
ALIAS = "owner/tiny-alias"
START_TIMEOUT_S = 60


def one_model(file: Path, **serve: object) -> ServerSettings:
    """The model on a free port with one thread, served as `serve` says."""
    config = ServeConfig.model_validate(
        {"port": 0, "num_threads": 1, "context_length": 8192, "drain_s": 5.0} | serve
    )
    return ServerSettings(variants=[ServedVariant(name=MODEL, artefact=file)], serve=config)


def command_of(settings: ServerSettings, folder: Path) -> list[str]:
    """What serves `settings`, which are written into `folder`."""
    file = folder / "settings.json"
    file.write_text(settings.model_dump_json(), encoding="utf-8")
    return [sys.executable, "-P", "-m", "serve.server", str(file)]


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def serve_command(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Serves the random model on a free port, with one thread and one slot."""
    return command_of(one_model(tiny_gguf), tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def server_url(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    settings = one_model(tiny_gguf, aliases=[ALIAS])
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server:
        yield server.url
    said = log.read_text()
    assert "Traceback" not in said, said


@pytest.fixture
def http(server_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server_url, timeout=30) as client:
        yield client


@pytest.fixture(params=["/v1", "/api/ai"])
def openai_client(server_url: str, request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """The plain OpenAI client, on both of the interface's paths."""
    with OpenAI(base_url=server_url + request.param, api_key="none", max_retries=0) as client:
        yield client
