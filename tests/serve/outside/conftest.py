"""A server of a random model whose template takes tools, as its clients see it."""

from collections.abc import Iterator

import pytest

from serve.process import start_interface
from tests.serve.conftest import ALIAS, START_TIMEOUT_S, one_model
from tests.serve.engines.tool_llama import build_tool_gguf


@pytest.fixture(scope="package")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("outside")
    settings = one_model(build_tool_gguf(folder), aliases=[ALIAS])
    log = folder / "server.log"
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server:
        yield server.url
    assert "Traceback" not in log.read_text()
