"""The chat: answers appear while they come, and can be stopped, retried and asked anew."""

import time
from collections.abc import Callable

import httpx
from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED
from tests.workbench.run_folder import RUN
from tests.workbench.scripted_host import Answer, ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

LONG = " ".join(f"word{number}" for number in range(200))
WAIT_S = 5.0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def test_an_answer_grows_while_it_comes(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    host.answers["Go"] = Answer(text=" ".join(f"word{n}" for n in range(40)), pause_s=0.04)
    workbench.ask("Go")
    expect(workbench.answer).to_contain_text("word3")
    early = workbench.answer.inner_text()
    assert "word39" not in early
    assert host.num_open == 1
    expect(workbench.answer).to_contain_text("word12")
    assert "word39" not in workbench.answer.inner_text()
    expect(workbench.answer).to_contain_text("word39")
    workbench.wait_for_end()
    expect(workbench.turns("assistant").last).to_contain_text("7 + 40 tokens")


def test_markdown_is_rendered_also_while_it_comes(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    code, table = "```python\nprint(1)\n```", "| a | b |\n|---|---|\n| 1 | 2 |"
    text = f"# Title\n\nSome **bold** word.\n\n{code}\n\n{table}\n\n"
    host.answers["Go"] = Answer(text=text + LONG[:300], pause_s=0.03)
    workbench.ask("Go")
    expect(workbench.answer.locator("strong")).to_have_text("bold")
    assert host.num_open == 1
    expect(workbench.answer.get_by_role("heading", name="Title")).to_be_visible()
    workbench.wait_for_end()
    expect(workbench.answer.locator("pre")).to_have_text("print(1)\n")
    expect(workbench.answer.locator("td")).to_have_count(2)


def test_a_stopped_answer_stays_and_frees_its_slot(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    host.answers["Go"] = Answer(text=LONG, pause_s=0.05)
    workbench.ask("Go")
    expect(workbench.answer).to_contain_text("word2")
    workbench.part("stop").click()
    workbench.wait_for_end()
    wait_until(lambda: host.num_open == 0)
    assert host.num_cut_off == 1
    expect(workbench.turns("assistant").last).to_contain_text("stopped")
    shown = workbench.answer.inner_text()
    assert shown.startswith("word0 word1 word2")
    assert "word199" not in shown
    assert workbench.exchange("And now?") == "As you say."
    # What had come is part of the conversation.
    assert workbench.sent[-1]["messages"][1]["content"].startswith("word0 word1 word2")


def test_the_engine_on_this_machine_stops_as_well(workbench: WorkbenchPage, url: str) -> None:
    workbench.choose_model(RUN)
    workbench.set_parameters(temperature=0)
    workbench.ask("Say noise until the context ends.")
    expect(workbench.part("stop")).to_be_visible()
    expect(workbench.answer).not_to_contain_text("Waiting for the first word")
    workbench.part("stop").click()
    workbench.wait_for_end()
    body = {"model": RUN, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    started = time.monotonic()
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).raise_for_status()
    assert time.monotonic() - started < WAIT_S
    metrics = httpx.get(f"{url}/metrics").text
    running = [line for line in metrics.splitlines() if "running" in line and line[0] != "#"]
    assert running
    assert all(line.endswith(" 0.0") for line in running), running


def test_edit_and_resend_drops_what_came_after(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    for question in ("One", "Two", "Three"):
        workbench.exchange(question)
    workbench.turns("user").nth(1).get_by_test_id("edit").click()
    editor = workbench.part("edit-text")
    expect(editor).to_have_value("Two")
    editor.fill("Two, again")
    host.answers["Two, again"] = Answer(text="Second time.")
    workbench.part("resend").click()
    expect(workbench.answer).to_have_text("Second time.")
    workbench.wait_for_end()
    expect(workbench.turns("user")).to_have_count(2)
    expect(workbench.turns("assistant")).to_have_count(2)
    sent = [(turn["role"], turn["content"]) for turn in workbench.sent[-1]["messages"]]
    assert sent == [("user", "One"), ("assistant", "As you say."), ("user", "Two, again")]
    assert workbench.sent[-1]["messages"] == host.requests[-1]["messages"]


def test_an_edit_that_is_given_up_changes_nothing(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.exchange("One")
    workbench.turns("user").first.get_by_test_id("edit").click()
    workbench.part("edit-text").fill("Another")
    workbench.page.keyboard.press("Escape")
    expect(workbench.turns("user").first).to_contain_text("One")
    expect(workbench.turns("assistant")).to_have_count(1)
    assert len(host.requests) == 1


def test_retry_asks_the_same_again(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.exchange("One")
    host.otherwise = Answer(text="Otherwise.")
    try:
        workbench.part("retry").click()
        expect(workbench.answer).to_have_text("Otherwise.")
    finally:
        host.otherwise = Answer(text="As you say.")
    workbench.wait_for_end()
    assert workbench.sent[0] == workbench.sent[1]
    expect(workbench.turns("assistant")).to_have_count(1)


def test_a_fault_is_told_with_a_way_on(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.watch.takes_errors = True
    host.answers["Go"] = Answer(text="no such luck", status=400)
    workbench.ask("Go")
    expect(workbench.part("error")).to_contain_text("No such luck.")
    host.answers["Go"] = Answer(text="Better.")
    workbench.wait_for_end()
    workbench.part("retry").click()
    expect(workbench.answer).to_have_text("Better.")
    workbench.wait_for_end()
    expect(workbench.part("error")).to_have_count(0)
    assert workbench.sent[0] == workbench.sent[1]


def test_the_answer_says_who_gave_it(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.exchange("Go")
    last = workbench.turns("assistant").last
    expect(last).to_contain_text(HOSTED)
    expect(last).to_contain_text("by hosted/scripted")
    expect(last).to_contain_text("in all")


def test_the_end_of_an_answer_is_announced_once(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.page.evaluate(
        """() => { window.said = [];
        new MutationObserver(() => window.said.push(document.getElementById("live").textContent))
          .observe(document.getElementById("live"), {childList: true, characterData: true}); }"""
    )
    host.answers["Go"] = Answer(text=LONG[:200], pause_s=0.02)
    workbench.exchange("Go")
    said = workbench.page.evaluate("window.said")
    assert len(said) == 1
    assert said[0].startswith("Answer complete. word0")
