"""Nothing leaves for another host, and the page says so to the browser as well."""

import re

import httpx
import pytest
from playwright.sync_api import Browser

from tests.workbench.browser import Watch
from tests.workbench.conftest import HOSTED, HOSTED_TOO
from tests.workbench.scripted_host import ScriptedHost
from tests.workbench.workbench_page import VIEWS, WorkbenchPage

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types tunery",
}


@pytest.mark.parametrize("path", ["/", "/workbench/assets/app.js", "/workbench/assets/style.css"])
def test_the_policy_is_sent_with_the_page_and_its_files(url: str, path: str) -> None:
    headers = httpx.get(url + path).raise_for_status().headers
    assert set(headers["content-security-policy"].split("; ")) == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_holds_no_inline_script_style_or_outer_address(url: str) -> None:
    text = httpx.get(url).text
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text)
    for name in re.findall(r'(?:src|href)="(/workbench/assets/[^"]+)"', text):
        text += httpx.get(url + name).raise_for_status().text
    addresses = set(re.findall(r"\b(?:https?:)?//[\w.-]+\.[a-z]{2,}", text))
    assert addresses <= {"http://www.w3.org"}, "the name of SVG's namespace is all"


def test_a_walk_through_all_views_asks_the_server_alone(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    for view in VIEWS:
        workbench.go_to(view)
    workbench.go_to("compare")
    workbench.choose_compared([HOSTED, HOSTED_TOO])
    workbench.compare("Go")
    workbench.wait_for_columns()
    workbench.go_to("chat")
    workbench.exchange("Go")
    assert len(workbench.watch.urls) > 20
    assert workbench.watch.elsewhere == []
    assert workbench.watch.all_faults() == []


def test_the_watch_sees_what_a_bad_page_does(browser: Browser, url: str) -> None:
    """Were it blind, all other tests would pass whatever the page did."""
    bad = """<script>
      console.error("said"); setTimeout(() => { throw new Error("thrown") }); alert("shown");
      window.__violations.push("refused");
      </script><img src="http://elsewhere.example/pixel.png">"""
    watch = Watch(url)
    with browser.new_context() as context:
        watch.attach(context)
        page = context.new_page()
        page.set_content(bad)
        page.wait_for_timeout(100)
        told = " ".join(watch.all_faults())
    for fault in ("said", "thrown", "shown", "refused", "elsewhere.example/pixel.png"):
        assert fault in told
