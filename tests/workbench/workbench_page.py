"""The page as its users have it: what they see and press, by the names that its parts bear."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

from tests.workbench.browser import Watch

VIEWS = ("chat", "compare", "api", "samples", "runs")
READY = {
    "chat": "composer-text",
    "compare": "compare-run",
    "api": "call-code",
    "samples": "sample",
    "runs": "run-card",
}
"""What is there once a view is."""


class WorkbenchPage:
    """A tab of the browser at a server's address."""

    def __init__(self, page: Page, url: str, watch: Watch) -> None:
        self.page = page
        self.url = url
        self.watch = watch
        self._asked: list[Request] = []
        page.on("request", self._keep)

    def _keep(self, request: Request) -> None:
        if request.url.endswith("/chat/completions"):
            self._asked.append(request)

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The bodies of the completions that the page has asked for."""
        return [json.loads(request.post_data or "null") for request in self._asked]

    def part(self, testid: str) -> Locator:
        """A part by its `data-testid`, in the view that is shown."""
        return self.page.get_by_test_id(testid).filter(visible=True)

    def open(self, view: str = "chat") -> None:
        """Load the page at a view."""
        self.page.goto(f"{self.url}/#{view}")
        self.wait_for(view)

    def go_to(self, view: str) -> None:
        """Choose a tab."""
        self.part(f"tab-{view}").click()
        self.wait_for(view)

    def wait_for(self, view: str) -> None:
        """Until a view is there."""
        self.part(READY[view]).first.wait_for()

    def choose_model(self, name: str) -> None:
        """In the settings."""
        self.part("model-select").select_option(name)

    def unfold_settings(self) -> None:
        """Open all groups of the settings."""
        self.page.evaluate(
            "for (const group of document.querySelectorAll('#settings details')) group.open = true"
        )

    def set_parameters(self, **values: float | str) -> None:
        """Type into the fields of the form."""
        self.unfold_settings()
        for name, value in values.items():
            self.part(f"param-{name}").fill(str(value))

    def ask(self, text: str) -> None:
        """Send a message in the chat."""
        self.part("composer-text").fill(text)
        self.part("send").click()

    def turns(self, role: str) -> Locator:
        """The messages of a role that are shown."""
        return self.page.locator(f"[data-testid=message][data-role={role}]").filter(visible=True)

    @property
    def answer(self) -> Locator:
        """What the last answer of the chat says."""
        return self.turns("assistant").last.locator(".message-body")

    def wait_for_end(self) -> None:
        """Until the chat's answer is whole."""
        expect(self.part("send")).to_be_visible()

    def exchange(self, text: str) -> str:
        """Send a message and give the whole answer's text as it is shown."""
        num_answers = self.turns("assistant").count()
        self.ask(text)
        expect(self.turns("assistant")).to_have_count(num_answers + 1)
        self.wait_for_end()
        return self.answer.inner_text()

    def choose_compared(self, names: Sequence[str]) -> None:
        """Which models Compare asks."""
        while self.page.get_by_test_id(f"compare-model-{len(names) - 1}").count() == 0:
            self.part("compare-add").click()
        for index, name in enumerate(names):
            self.part(f"compare-model-{index}").select_option(name)

    def compare(self, text: str) -> list[Locator]:
        """Ask the chosen models; their columns."""
        self.part("compare-prompt").fill(text)
        self.part("compare-run").click()
        return self.part("compare-column").all()

    def wait_for_columns(self) -> None:
        """Until all of Compare's answers have ended."""
        expect(self.part("compare-run")).to_be_visible(timeout=20_000)

    def code(self, kind: str) -> str:
        """The code that the API tab shows for a kind of client."""
        self.part(f"call-tab-{kind}").click()
        return self.part("call-code").inner_text()

    def runs_scripts(self) -> bool:
        """Whether any hostile text has acted in the page."""
        return bool(self.page.evaluate("'__pwned' in window"))


def parts_of(body: Mapping[str, Any]) -> set[str]:
    """The fields of a request."""
    return set(body)
