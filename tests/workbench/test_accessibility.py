"""The page by keyboard, for screen readers, in the dark, and in narrow windows."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.workbench.conftest import HOSTED, HOSTED_TOO, OpenPage
from tests.workbench.scripted_host import Answer, ScriptedHost
from tests.workbench.workbench_page import VIEWS, WorkbenchPage

GRAVE = ("serious", "critical")
NARROW = {"width": 400, "height": 800}
MARKDOWN = (
    "# Title\n\nA **word**, a [link](https://example.org) and `code`.\n\n"
    "```python\nprint(1)\n```\n\n"
    "> said\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "long" * 60
)


def grave_faults(page: Page) -> list[str]:
    """What axe finds serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:200]} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]


def fill_view(page: WorkbenchPage, view: str, host: ScriptedHost) -> None:
    """Show a view with something in it."""
    host.answers["Go"] = Answer(text=MARKDOWN)
    page.open("chat")
    page.choose_model(HOSTED)
    page.unfold_settings()
    if view in ("chat", "api"):
        page.exchange("Go")
    if view != "chat":
        page.go_to(view)
    if view == "compare":
        page.choose_compared([HOSTED, HOSTED_TOO])
        page.part("blind-toggle").check()
        page.compare("Go")
        expect(page.part("vote-tie")).to_be_visible()
        page.part("vote-skip").click()
        page.part("blind-toggle").uncheck()
        page.part("diff-toggle").click()
        expect(page.part("diff")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_grave(
    open_page: OpenPage, url: str, host: ScriptedHost, view: str, scheme: str
) -> None:
    page = open_page(url, color_scheme=scheme, reduced_motion="reduce")
    fill_view(page, view, host)
    background = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in background[4:-1].split(",")[:3]) > 3 * 128
    assert light == (scheme == "light")
    assert grave_faults(page.page) == []


def test_axe_finds_what_is_wrong(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    page.open("chat")
    page.page.evaluate("document.getElementById('system-prompt').labels[0].remove()")
    page.page.evaluate("document.getElementById('system-prompt').placeholder = ''")
    assert any("label" in fault for fault in grave_faults(page.page))


def test_axe_finds_nothing_grave_in_the_key_dialog(
    open_page: OpenPage, locked: tuple[str, str]
) -> None:
    page = open_page(locked[0])
    page.page.goto(locked[0])
    expect(page.part("key-input")).to_be_focused()
    assert grave_faults(page.page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_narrow_windows_need_no_scrolling_sideways(
    open_page: OpenPage, url: str, host: ScriptedHost, view: str
) -> None:
    page = open_page(url)
    fill_view(page, view, host)
    page.page.set_viewport_size({"width": 400, "height": 800})
    page.page.wait_for_timeout(100)
    widths = page.page.evaluate(
        "[document.scrollingElement.scrollWidth, ...[...document.querySelectorAll('main, .view, "
        ".log')].filter((one) => one.checkVisibility()).map((one) => one.scrollWidth)]"
    )
    assert max(widths) <= NARROW["width"]
    assert grave_faults(page.page) == []


def test_settings_are_reached_in_narrow_windows(open_page: OpenPage, url: str) -> None:
    page = open_page(url, viewport=NARROW)
    page.open("chat")
    opener = page.page.get_by_role("button", name="Settings")
    opener.click()
    expect(page.part("model-select")).to_be_in_viewport()
    page.page.keyboard.press("Escape")
    expect(page.part("model-select")).not_to_be_in_viewport()
    expect(opener).to_be_focused()


def test_tabs_are_walked_by_arrow_keys(workbench: WorkbenchPage) -> None:
    keyboard = workbench.page.keyboard
    workbench.part("tab-chat").focus()
    for key, view in [
        ("ArrowRight", "compare"),
        ("ArrowRight", "api"),
        ("End", "runs"),
        ("ArrowRight", "chat"),
        ("ArrowLeft", "runs"),
        ("Home", "chat"),
    ]:
        keyboard.press(key)
        tab = workbench.part(f"tab-{view}")
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(workbench.page.locator(f"#panel-{view}")).to_be_visible()
        assert workbench.page.locator("[role=tabpanel][id^=panel-]:visible").count() == 1
        reached = ".topbar [role=tab][tabindex='0'], .topbar [role=tab]:not([tabindex])"
        assert workbench.page.locator(reached).count() == 1


def test_enter_sends_and_shift_enter_begins_a_line(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.part("composer-text").focus()
    keyboard = workbench.page.keyboard
    keyboard.type("One")
    keyboard.press("Shift+Enter")
    keyboard.type("Two")
    keyboard.press("Enter")
    expect(workbench.answer).to_have_text(host.otherwise.text)
    assert workbench.sent[0]["messages"][0]["content"] == "One\nTwo"
    expect(workbench.part("composer-text")).to_be_focused()


def test_everything_is_reached_by_tab_and_its_focus_is_seen(workbench: WorkbenchPage) -> None:
    workbench.page.reload()
    workbench.wait_for("chat")
    seen: list[str] = []
    for _ in range(60):
        workbench.page.keyboard.press("Tab")
        told = workbench.page.evaluate(
            """() => { const one = document.activeElement;
            const isDrawn = ({outlineStyle, boxShadow}) =>
              outlineStyle !== "none" || boxShadow !== "none";
            return {id: one.dataset.testid ?? one.id, body: one === document.body,
              drawn: isDrawn(getComputedStyle(one))
                || isDrawn(getComputedStyle(one.closest("form") ?? one))}; }"""
        )
        if told["body"] or (seen and told["id"] == seen[0]):
            break
        assert told["drawn"], f"{told['id']} has the focus, and nothing shows it"
        seen.append(told["id"])
    wanted = [
        "skip",
        "tab-chat",
        "new-chat",
        "composer-text",
        "send",
        "model-select",
        "system-prompt",
    ]
    assert [one for one in seen if one in wanted] == wanted


def test_motion_is_left_out_where_it_is_not_wanted(
    open_page: OpenPage, url: str, host: ScriptedHost
) -> None:
    page = open_page(url, reduced_motion="reduce")
    page.open("chat")
    page.choose_model(HOSTED)
    host.answers["Go"] = Answer(text="a b c d", pause_s=0.1)
    page.ask("Go")
    page.wait_for_end()
    moving = page.page.evaluate(
        "document.getAnimations().map((one) => one.effect.getComputedTiming().duration)"
        ".filter((duration) => duration > 10).length"
    )
    assert moving == 0
