"""The API tab: its code is in step with the form, and each call run gives what the page shows."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.serve.workbench.run_call import run_call
from tests.workbench.conftest import OpenPage
from tests.workbench.run_folder import RUN
from tests.workbench.workbench_page import WorkbenchPage

KINDS = ("curl", "openai", "requests", "javascript")
QUESTION = 'What\'s the "river" – and $HOME?\nSay `it` \\ once.'
SYSTEM = "You're brief."


@pytest.fixture
def asked(workbench: WorkbenchPage) -> tuple[WorkbenchPage, str]:
    """The page after a greedy answer of the model on this machine, and that answer's text."""
    workbench.choose_model(RUN)
    workbench.part("system-prompt").fill(SYSTEM)
    workbench.set_parameters(temperature=0, max_tokens=12)
    workbench.exchange(QUESTION)
    content = workbench.page.evaluate(LAST_ANSWER)
    workbench.go_to("api")
    return workbench, content


LAST_ANSWER = """() => new Promise((resolve) => {
  const open = indexedDB.open("tunery");
  const look = () => {
    const all = open.result.transaction("chats").objectStore("chats").getAll();
    all.onsuccess = () => {
      const last = all.result.at(-1)?.turns.at(-1).message;
      if (last?.role === "assistant") resolve(last.content);
      else setTimeout(look, 50);
    };
  };
  open.onsuccess = look;
})"""
"""The noise of a random model holds characters that a page shows otherwise than they are."""


@pytest.mark.parametrize("kind", KINDS)
def test_each_call_gives_what_the_page_shows(
    asked: tuple[WorkbenchPage, str], kind: str, tmp_path: Path
) -> None:
    page, content = asked
    assert content
    printed = run_call(kind, page.code(kind), tmp_path)
    if kind == "curl":
        answer: dict[str, Any] = json.loads(printed)
        assert answer["choices"][0]["message"]["content"] == content
        return
    assert printed.rstrip("\n") == content.rstrip("\n")


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_follows_the_form(asked: tuple[WorkbenchPage, str], kind: str) -> None:
    page, _ = asked
    before = page.code(kind)
    assert RUN in before
    assert "0.375" not in before
    page.part("param-temperature").fill("0.375")
    expect(page.part("call-code")).to_contain_text("0.375")
    page.part("system-prompt").fill("Now at length.")
    expect(page.part("call-code")).to_contain_text("Now at length.")
    page.page.get_by_role("button", name="Reset temperature").click()
    expect(page.part("call-code")).not_to_contain_text("temperature")


def test_what_is_copied_is_the_code(open_page: OpenPage, url: str) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    page.open("api")
    for kind in KINDS:
        code = page.code(kind)
        page.part("copy-call").click()
        page.page.wait_for_function(
            "async (code) => (await navigator.clipboard.readText()).trimEnd() === code.trimEnd()",
            arg=code,
        )


def test_no_key_stands_in_the_code_or_the_page(
    open_page: OpenPage, locked: tuple[str, str]
) -> None:
    url, key = locked
    page = open_page(url)
    page.page.goto(f"{url}/#api")
    page.part("key-input").fill(key)
    page.page.get_by_role("button", name="Use this key").click()
    page.wait_for("api")
    for kind in KINDS:
        code = page.code(kind)
        assert "TUNERY_KEY" in code
        assert key not in code
    assert key not in page.page.content()
    assert not any(key in asked for asked in page.watch.urls)
