"""Samples and runs: what the last evaluation asked is a click away from being asked again."""

import re

from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED
from tests.workbench.run_folder import ANSWERS, HOSTILE_RUN, QUESTION, REFERENCE, RUN
from tests.workbench.scripted_host import ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage


def test_samples_show_both_sides_and_are_found(workbench: WorkbenchPage) -> None:
    workbench.go_to("samples")
    first = workbench.part("sample").first
    for text in (f"{QUESTION} Number 0.", REFERENCE, *ANSWERS, "Won by the variant"):
        expect(first).to_contain_text(text)
    expect(workbench.part("sample")).to_have_count(20)
    workbench.page.get_by_role("button", name="Next").filter(visible=True).click()
    expect(workbench.part("sample").first).to_contain_text("Number 20.")
    workbench.page.get_by_label("Outcome").select_option("lost")
    expect(workbench.part("sample")).to_have_count(10)
    workbench.page.get_by_label("Task").select_option("stones")
    expect(workbench.part("sample")).to_have_count(2)
    workbench.page.get_by_label("Search").fill("number 33")
    expect(workbench.part("sample")).to_have_count(1)
    expect(workbench.part("sample")).to_contain_text("Number 33.")


def test_a_sample_is_asked_again_in_the_chat(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.go_to("samples")
    workbench.part("sample-open").nth(1).click()
    expect(workbench.part("composer-text")).to_have_value(f"{QUESTION} Number 1.")
    expect(workbench.part("system-prompt")).to_have_value("You know rivers.")
    workbench.part("send").click()
    expect(workbench.answer).to_have_text("As you say.")
    assert host.requests[0]["messages"] == [
        {"role": "system", "content": "You know rivers."},
        {"role": "user", "content": f"{QUESTION} Number 1."},
    ]


def test_a_sample_is_compared(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.go_to("samples")
    workbench.part("sample-compare").first.click()
    expect(workbench.part("compare-prompt")).to_have_value(f"{QUESTION} Number 0.")
    workbench.choose_compared([HOSTED, HOSTED])
    workbench.part("compare-run").click()
    workbench.wait_for_columns()
    assert len(host.requests) == 2
    assert host.requests[0]["messages"][0]["role"] == "system"


def test_runs_show_verdict_losses_and_reports(workbench: WorkbenchPage) -> None:
    workbench.go_to("runs")
    expect(workbench.part("run-card")).to_have_count(2)
    card = workbench.part("run-card").filter(has=workbench.page.get_by_role("heading", name=RUN))
    for text in ("What a river says.", "answers here", "better", "Promote", "tiny-base"):
        expect(card).to_contain_text(text)
    expect(card).to_contain_text("+25.0 points (+12.5 to +37.5)")
    assert card.locator("svg").count() >= 1
    other = workbench.part("run-card").filter(
        has=workbench.page.get_by_role("heading", name=HOSTILE_RUN)
    )
    expect(other).not_to_contain_text("answers here")


def test_reports_open_apart_from_the_page(workbench: WorkbenchPage) -> None:
    workbench.go_to("runs")
    card = workbench.part("run-card").filter(has=workbench.page.get_by_role("heading", name=RUN))
    links = card.get_by_role("link", name=re.compile("report$"))
    expect(links).to_have_count(4)
    for link in links.all():
        with workbench.page.context.expect_page() as opened:
            link.click()
        report = opened.value
        expect(report.get_by_role("heading", name="Report")).to_be_visible()
        assert report.evaluate("origin") == "null"
        assert report.evaluate("opener") is None
        report.close()
