"""One server, one host behind it and one browser for all tests of the page."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from configs.serve_schema import ServeConfig
from serve.access.commands import add_key
from serve.process import start_interface
from serve.settings import ServedVariant, ServerSettings
from tests.serve.tiny_llama import build_tiny_gguf
from tests.workbench.browser import NO_BROWSER, Watch, find_chromium, open_chromium
from tests.workbench.hostile import NAME
from tests.workbench.run_folder import RUN, write_runs
from tests.workbench.scripted_host import MODEL, ScriptedHost, run_scripted_host
from tests.workbench.workbench_page import WorkbenchPage

REQUIRED = "TUNERY_REQUIRE_BROWSER"
TIMEOUT_MS = 30_000
# Of what is expected to come true; a busy machine takes its time.
expect.set_options(timeout=TIMEOUT_MS)
START_TIMEOUT_S = 60
WINDOW: ViewportSize = {"width": 1280, "height": 800}
HOSTED = "host/one"
HOSTED_TOO = "host/two"

OpenPage = Callable[..., WorkbenchPage]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Not of the session: while it runs, this thread can run no other event loop."""
    program = find_chromium()
    if program is None and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {NO_BROWSER}")
    if program is None:
        pytest.skip(NO_BROWSER)
    with open_chromium(program) as chromium:
        yield chromium


@pytest.fixture(scope="package")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one of them with hostile words wherever words may stand."""
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return folder


@pytest.fixture(scope="package")
def scripted_host(browser: Browser) -> Iterator[ScriptedHost]:
    with run_scripted_host() as host:
        yield host


def settings_of(runs: Path, gguf: Path, host: ScriptedHost, **serve: object) -> ServerSettings:
    """A run's tiny variant, its base, and three names of the host."""
    hosted = {
        "base_url": host.base_url,
        "model": MODEL,
        "price": {"currency": "EUR", "input_per_million": 2, "output_per_million": 6},
    }
    routes = {"tiny-base": {"to": "base"}}
    routes |= {name: {"to": "hosted"} for name in (HOSTED, HOSTED_TOO, NAME)}
    config = {"port": 0, "num_threads": 1, "context_length": 2048, "drain_s": 2.0}
    return ServerSettings(
        variants=[ServedVariant(name=RUN, description="Says noise.", artefact=gguf)],
        base_name="tiny-base",
        base=gguf,
        serve=ServeConfig.model_validate(config | {"hosted": hosted, "routes": routes} | serve),
        runs=[runs / RUN],
        folder=runs / RUN / "serve",
    )


@pytest.fixture(scope="package")
def url(
    runs: Path, gguf: Path, scripted_host: ScriptedHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The server's address."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    settings = settings_of(runs, gguf, scripted_host)
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server:
        yield server.url
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def locked(
    runs: Path, gguf: Path, scripted_host: ScriptedHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Address and key of a server that asks for keys."""
    folder = tmp_path_factory.mktemp("locked")
    key = add_key(folder / "keys.json", "browser")
    settings = settings_of(runs, gguf, scripted_host, api_keys_path=folder / "keys.json")
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=folder / "log") as server:
        yield server.url, key


@pytest.fixture
def host(scripted_host: ScriptedHost) -> ScriptedHost:
    """The host, which has seen and been told nothing yet."""
    scripted_host.forget()
    return scripted_host


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., WorkbenchPage]]:
    """Opens pages, each in a profile of its own; at the end none may have done anything amiss.

    Call it with the server's address and, where they matter, options of the browser's context.
    """
    opened: list[tuple[Page, Watch]] = []

    def open_one(url: str, **options: object) -> WorkbenchPage:
        context = browser.new_context(**{"viewport": WINDOW, "locale": "en-GB"} | options)  # type: ignore[arg-type]
        context.set_default_timeout(TIMEOUT_MS)
        watch = Watch(url)
        watch.attach(context)
        page = context.new_page()
        opened.append((page, watch))
        return WorkbenchPage(page, url, watch)

    yield open_one
    faults = [fault for _, watch in opened for fault in watch.all_faults()]
    for page, _ in opened:
        page.context.close()
    assert faults == []


@pytest.fixture
def workbench(open_page: OpenPage, url: str) -> WorkbenchPage:
    """The page, opened at the chat with the host's first name chosen."""
    page = open_page(url)
    page.open("chat")
    page.choose_model(HOSTED)
    return page


@pytest.fixture
def votes_file(runs: Path) -> Iterator[Path]:
    """Where votes land; there are none yet."""
    file = runs / RUN / "serve" / "votes.jsonl"
    file.unlink(missing_ok=True)
    yield file
    file.unlink(missing_ok=True)
