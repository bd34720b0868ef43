"""Pictures of each of the workbench's views for the documentation, from a run that is there.

    python -m tests.workbench.screenshots runs/demo-legal docs/images

The run is to be merged and evaluated, with a route to its base (`to: base`) beside the variant.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, expect

from configs.run_directory import open_run
from serve.of_runs import settings_of_run
from serve.process import start_interface
from serve.settings import ServerSettings
from tests.workbench.browser import chromium

WINDOW: ViewportSize = {"width": 1280, "height": 800}
START_TIMEOUT_S = 120
ANSWER_TIMEOUT_MS = 120_000
QUESTION = (
    "Licence notice: Released under the Apache License, Version 2.0. "
    "Name the licence (SPDX id) and its category."
)
EXPLAIN = "Explain in Markdown, with a short list: what does a permissive licence allow?"


def main() -> None:
    """Write all pictures into the folder."""
    run, folder = Path(sys.argv[1]), Path(sys.argv[2])
    directory = open_run(run)
    config = directory.load_config()
    settings = settings_of_run((directory, config))
    names = (config.name, next(iter(settings.serve.routes)))
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        with start_interface(_on_free_port(settings), timeout_s=START_TIMEOUT_S, log=log) as server:
            for scheme in ("light", "dark"):
                with chromium() as browser:
                    context = browser.new_context(viewport=WINDOW, color_scheme=scheme)
                    context.set_default_timeout(ANSWER_TIMEOUT_MS)
                    _take_all(context.new_page(), server.url, names, folder, scheme)


def _on_free_port(settings: ServerSettings) -> ServerSettings:
    return settings.model_copy(update={"serve": settings.serve.model_copy(update={"port": 0})})


def _take_all(page: Page, url: str, names: tuple[str, str], folder: Path, scheme: str) -> None:
    """All views in the light scheme, in the dark one the chat alone."""
    suffix = "" if scheme == "light" else "-dark"
    expect.set_options(timeout=ANSWER_TIMEOUT_MS)
    page.goto(f"{url}/#chat")
    page.get_by_test_id("model-select").select_option(names[0])
    page.get_by_test_id("param-temperature").fill("0")
    page.get_by_test_id("param-max_tokens").fill("160")
    _ask(page, QUESTION)
    page.get_by_test_id("model-select").select_option(names[1])
    _ask(page, EXPLAIN)
    page.screenshot(path=folder / f"workbench-chat{suffix}.png")
    if suffix:
        return
    page.get_by_test_id("tab-compare").click()
    for index, name in enumerate(names):
        page.get_by_test_id(f"compare-model-{index}").select_option(name)
    page.get_by_test_id("compare-prompt").fill(QUESTION)
    page.get_by_test_id("compare-run").click()
    expect(page.get_by_test_id("diff-toggle")).to_be_enabled()
    page.get_by_test_id("diff-toggle").click()
    expect(page.get_by_test_id("diff")).not_to_be_empty()
    page.screenshot(path=folder / "workbench-compare.png")
    _take(page, "api", "call-code", folder)
    _take(page, "samples", "sample", folder)
    _take(page, "runs", "run-card", folder)


def _ask(page: Page, text: str) -> None:
    page.get_by_test_id("composer-text").fill(text)
    page.get_by_test_id("send").click()
    expect(page.get_by_test_id("stop").filter(visible=True)).to_have_count(0)
    expect(page.get_by_test_id("retry").last).to_be_visible()
    page.wait_for_timeout(500)


def _take(page: Page, view: str, testid: str, folder: Path) -> None:
    page.get_by_test_id(f"tab-{view}").click()
    page.get_by_test_id(testid).first.wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    page.screenshot(path=folder / f"workbench-{view}.png")


if __name__ == "__main__":
    main()
