"""Past chats stay in the browser: kept over a reload, gone when deleted, and never sent."""

from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED, OpenPage
from tests.workbench.scripted_host import ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

SECRET = "a word that only this chat holds"


def test_a_chat_is_there_after_a_reload(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.set_parameters(temperature=0.5)
    workbench.part("system-prompt").fill("Be brief.")
    workbench.exchange("First")
    workbench.page.reload()
    workbench.wait_for("chat")
    expect(workbench.turns("user")).to_contain_text("First")
    expect(workbench.answer).to_have_text("As you say.")
    expect(workbench.part("history-item")).to_have_count(1)
    workbench.exchange("Second")
    sent = workbench.sent[-1]
    assert [turn["content"] for turn in sent["messages"]] == [
        "Be brief.",
        "First",
        "As you say.",
        "Second",
    ]
    assert sent["temperature"] == 0.5


def test_chats_are_opened_again_and_deleted(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    for question in ("First", "Second"):
        workbench.exchange(question)
        workbench.part("new-chat").click()
    items = workbench.part("history-item")
    expect(items).to_have_count(2)
    items.filter(has_text="First").locator(".history-open").click()
    expect(workbench.turns("user")).to_contain_text("First")
    workbench.watch.confirms = False
    items.filter(has_text="Second").hover()
    items.filter(has_text="Second").get_by_role("button", name="Delete").click()
    expect(items).to_have_count(2)
    workbench.watch.confirms = True
    items.filter(has_text="Second").get_by_role("button", name="Delete").click()
    expect(items).to_have_count(1)
    items.filter(has_text="First").hover()
    items.filter(has_text="First").get_by_role("button", name="Delete").click()
    expect(items).to_have_count(0)
    expect(workbench.turns("user")).to_have_count(0)
    workbench.page.reload()
    workbench.wait_for("chat")
    expect(workbench.page.get_by_text("No chats yet.")).to_be_visible()


def test_a_chat_is_renamed(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.exchange("First")
    workbench.part("history-item").hover()
    workbench.page.get_by_role("button", name="Rename First").click()
    workbench.page.keyboard.type("Rivers")
    workbench.page.keyboard.press("Enter")
    expect(workbench.part("history-item")).to_contain_text("Rivers")


def test_nothing_of_past_chats_is_sent(open_page: OpenPage, url: str, host: ScriptedHost) -> None:
    page = open_page(url)
    page.open("chat")
    page.choose_model(HOSTED)
    page.exchange(SECRET)
    page.part("new-chat").click()
    posted: list[str] = []
    page.page.context.on(
        "request", lambda request: posted.append(f"{request.url} {request.post_data or ''}")
    )
    page.page.reload()
    page.wait_for("chat")
    page.exchange("Another")
    page.go_to("runs")
    page.go_to("api")
    assert len(posted) > 10
    assert not [one for one in posted if SECRET in one]
    assert SECRET not in page.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
