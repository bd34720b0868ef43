"""What the pages on serving tell people to copy works as it stands there.

Of a copied call only the address, the place of a run, and the model that answers are exchanged.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from configs.load import load_config
from serve.access.commands import add_key
from serve.process import start_interface
from serve.settings import ServerSettings
from tests.configs.minimal import MINIMAL
from tests.serve.conftest import START_TIMEOUT_S, one_model
from tests.serve.engines.tool_llama import build_tool_gguf

REPOSITORY = Path(__file__).parents[2]
PAGES = ("docs/serving.md", "docs/deploy/README.md")
CALLS = "docs/serving.md"
ADDRESS = "http://127.0.0.1:8000"
RUN = "runs/demo-legal/serve"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL_TIMEOUT_S = 60


@dataclass(frozen=True)
class Example:
    """A block of a page. place: page, line and language, as tests are named."""

    place: str
    language: str
    text: str


def find_examples(page: str, *languages: str) -> list[Example]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        Example(
            f"{page}:{text.count(chr(10), 0, block.start()) + 1}-{block[1]}", block[1], block[2]
        )
        for block in FENCED.finditer(text)
        if block[1] in languages
    ]


def named(examples: list[Example]) -> list[object]:
    """Parameters of a test; a page that lost its examples is an error, not a test less."""
    assert examples
    return [pytest.param(example, id=example.place) for example in examples]


@dataclass(frozen=True)
class Served:
    """A server with the names, keys and recordings of the page. folder: of its run."""

    url: str
    key: str
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A random model that calls tools, under the page's names, with the base as the shadow."""
    folder = tmp_path_factory.mktemp("docs")
    file = build_tool_gguf(folder / "gguf")
    key = add_key(folder / "keys.json", "web-shop")
    plain = one_model(
        file,
        routes={"mistral-small-2503": {"shadow": "base"}},
        api_keys_path=str(folder / "keys.json"),
    )
    settings = ServerSettings(
        variants=[plain.variants[0].model_copy(update={"name": "demo-legal"})],
        base_name="base",
        base=file,
        serve=plain.serve,
        folder=folder / "serve",
    )
    log = folder / "server.log"
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server:
        yield Served(server.url, key, folder / "serve")
    assert "Traceback" not in log.read_text()


def run_call(command: list[str], call: Example, served: Served) -> str:
    """What the example prints. It must end well: 0, and no word of an error."""
    text = call.text.replace(ADDRESS, served.url).replace(RUN, str(served.folder))
    result = subprocess.run(
        [*command, text],
        cwd=REPOSITORY,
        env=os.environ | {"TUNERY_KEY": served.key, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
        timeout=CALL_TIMEOUT_S,
    )
    assert result.returncode == 0, result.stderr
    assert '"error"' not in result.stdout, result.stdout
    assert result.stdout.strip()
    return result.stdout


@pytest.mark.parametrize("call", named(find_examples(CALLS, "bash")))
def test_calls_by_curl(call: Example, served: Served) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: the page's calls by cURL were not checked")
    said = run_call(["bash", "-euc"], call, served)
    if '"stream": true' in call.text:
        *chunks, last = [line for line in said.splitlines() if line.startswith("data: ")]
        assert last == "data: [DONE]"
        assert json.loads(chunks[-1].removeprefix("data: "))["usage"]["completion_tokens"] > 0
    elif "/chat/completions" in call.text:
        assert json.loads(said)["choices"][0]["message"]["content"]
    else:
        assert json.loads(said)["status"] == "ok"


@pytest.mark.parametrize("call", named(find_examples(CALLS, "python")))
def test_calls_by_python(call: Example, served: Served) -> None:
    if RUN in call.text:
        wait_for_records(served)
    said = run_call([sys.executable, "-c"], call, served)
    if "json_schema" in call.text:
        answer = json.loads(said)
        assert answer.keys() == {"category", "is_osi_approved"}
    elif RUN in call.text:
        assert "mistral-small-2503 demo-legal -> base {'answered': " in said
        share = re.search(r"same answer: ([\d.]+)", said)
        assert share is not None
        assert 0 < float(share[1]) <= 1, "the greedy pair of `wait_for_records` is equal"


def wait_for_records(served: Served) -> None:
    """Ask what the route of the page's cutover answers, and have the pair on disk."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 5}
    answer = httpx.post(
        f"{served.url}/v1/chat/completions",
        json={"model": "mistral-small-2503", **body},
        headers={"Authorization": f"Bearer {served.key}"},
    )
    id = answer.headers["X-Request-ID"]
    deadline = time.monotonic() + 15
    while not any(id in file.read_text() for file in served.folder.glob("recordings/*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("call", named(find_examples(CALLS, "js")))
def test_calls_by_javascript(call: Example, served: Served) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed: the page's calls by JavaScript were not checked")
    run_call(["node", "--input-type=module", "--eval"], call, served)


@pytest.mark.parametrize(
    "example", named([one for page in PAGES for one in find_examples(page, "yaml")])
)
def test_configurations_are_read(example: Example, tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(MINIMAL + example.text, encoding="utf-8")
    config = load_config(file)
    written = {line.partition(":")[0] for line in example.text.splitlines() if line[:1].isalpha()}
    assert written <= config.model_fields_set


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    for link in links:
        assert ((REPOSITORY / page).parent / link).exists(), link
