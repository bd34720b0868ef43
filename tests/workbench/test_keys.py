"""A server that asks for keys: nothing without one, all with it, and it stays where it belongs."""

import httpx
from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED, OpenPage
from tests.workbench.run_folder import RUN
from tests.workbench.scripted_host import ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

REPORT = f"/workbench/runs/{RUN}/evals/report.html"
GETS = (
    "/v1/models",
    "/workbench/api/runs",
    "/workbench/api/samples",
    "/workbench/api/votes",
    REPORT,
)
POSTS = ("markdown", "diff", "calls", "votes", "session")


def enter_key(page: WorkbenchPage, key: str) -> None:
    page.part("key-input").fill(key)
    page.page.get_by_role("button", name="Use this key").click()


def test_nothing_but_the_page_is_given_without_a_key(locked: tuple[str, str]) -> None:
    url, key = locked
    with httpx.Client(base_url=url) as client:
        for path in ("/", "/workbench/assets/app.js", "/workbench/api/about"):
            assert client.get(path).status_code == 200
        statuses = [client.get(path).status_code for path in GETS]
        statuses += [client.post(f"/workbench/api/{path}", json={}).status_code for path in POSTS]
        assert statuses == [401] * (len(GETS) + len(POSTS))
        with_key = {"Authorization": f"Bearer {key}"}
        assert [client.get(path, headers=with_key).status_code for path in GETS] == [200] * 5


def test_the_page_asks_for_a_key_and_works_with_it(
    open_page: OpenPage, locked: tuple[str, str], host: ScriptedHost
) -> None:
    url, key = locked
    page = open_page(url)
    page.watch.takes_errors = True
    page.page.goto(url)
    enter_key(page, "tunery_wrong")
    expect(page.page.get_by_text("does not know this key")).to_be_visible()
    page.page.keyboard.press("Escape")
    expect(page.part("key-input")).to_be_visible()
    enter_key(page, key)
    page.wait_for("chat")
    page.choose_model(HOSTED)
    assert page.exchange("Hi") == "As you say."
    page.page.reload()
    expect(page.turns("assistant")).to_have_count(1)
    assert page.exchange("Still?") == "As you say."


def test_a_key_stays_in_its_tab(open_page: OpenPage, locked: tuple[str, str]) -> None:
    url, key = locked
    page = open_page(url)
    page.page.goto(url)
    enter_key(page, key)
    page.wait_for("chat")
    assert page.page.evaluate("JSON.stringify(localStorage)").count(key) == 0
    assert page.page.evaluate("document.cookie") == ""
    other = page.page.context.new_page()
    other.goto(url)
    expect(other.get_by_test_id("key-input")).to_be_visible()
    page.page.get_by_role("button", name="API key").click()
    page.page.get_by_role("button", name="Forget the key").click()
    expect(page.part("key-input")).to_be_visible()
    assert page.page.evaluate("JSON.stringify(sessionStorage)").count(key) == 0


def test_a_report_opens_by_its_link(open_page: OpenPage, locked: tuple[str, str]) -> None:
    url, key = locked
    page = open_page(url)
    page.page.goto(f"{url}/#runs")
    enter_key(page, key)
    page.wait_for("runs")
    with page.page.context.expect_page() as opened:
        page.page.locator(f"a[href='{REPORT}']").click()
    expect(opened.value.get_by_role("heading", name="Report")).to_be_visible()
    cookies = page.page.context.cookies()
    assert [cookie["name"] for cookie in cookies] == ["tunery_session"]
    assert cookies[0]["httpOnly"]
    assert cookies[0]["sameSite"] == "Strict"
    assert cookies[0]["path"] == "/workbench/runs"
    assert key not in cookies[0]["value"]
