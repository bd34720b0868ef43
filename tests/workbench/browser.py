"""A real Chromium of this machine, and a watch over all that a page does in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    sync_playwright,
)

PROGRAMS = ("chromium", "google-chrome", "chromium-browser", "google-chrome-stable")
NO_BROWSER = (
    "no Chromium on PATH: install one (Debian: `apt-get install chromium`, Fedora: "
    "`dnf install chromium`, macOS and others: Google Chrome)"
)
# No name is looked up, so nothing can leave for another machine, and a try is seen as a request.
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
INLINE = ("data", "blob", "about")
RESOURCE_FAULT = "Failed to load resource"
"""What Chromium logs for every answer with a status of 400 and more."""
WATCH_SCRIPT = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.effectiveDirective}: ${event.blockedURI}`));
"""


def find_chromium() -> str | None:
    """The browser's program, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def open_chromium(program: str) -> Iterator[Browser]:
    """A headless browser until the block ends."""
    # Chromium's own sandbox cannot be set up by root.
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What pages of a context did that a good page does not do.

    urls: of all requests; stopped: those that the page's policy let not leave; faults: console
    errors, uncaught errors and unexpected dialogs; takes_errors: answers with an error status are
    expected; confirms: answer to questions that the page asks by `confirm`, None where it should
    ask none.
    """

    origin: str
    urls: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    takes_errors: bool = False
    confirms: bool | None = None

    def attach(self, context: BrowserContext) -> None:
        """Watch all pages of `context`, those that are opened later among them."""
        context.add_init_script(WATCH_SCRIPT)
        context.on("request", lambda request: self.urls.append(request.url))
        context.on("requestfailed", self._failed)
        context.on("page", lambda page: self.pages.append(page))
        context.on("console", self._console)
        context.on("dialog", self._dialog)
        context.on("weberror", lambda error: self.faults.append(f"uncaught: {error.error}"))

    def _failed(self, request: Request) -> None:
        if request.failure == "csp":
            self.stopped.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _dialog(self, dialog: Dialog) -> None:
        if dialog.type == "confirm" and self.confirms is not None:
            (dialog.accept if self.confirms else dialog.dismiss)()
            return
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def elsewhere(self) -> list[str]:
        """Requests for other hosts than the server's that would have left."""
        tried = (url for url in self.urls if not self._is_own(url))
        return [url for url in tried if url not in self.stopped]

    def _is_own(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in INLINE or f"{parts.scheme}://{parts.netloc}" == self.origin

    def all_faults(self) -> list[str]:
        """Everything that a good page does not do, in words; empty for a good one."""
        told = [
            fault for fault in self.faults if not (self.takes_errors and RESOURCE_FAULT in fault)
        ]
        told += [f"request elsewhere: {url}" for url in self.elsewhere]
        for page in self.pages:
            if not page.is_closed():
                violations: list[Any] = page.evaluate("window.__violations ?? []")
                told += [f"policy violation: {violation}" for violation in violations]
        return told


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser until the block ends, where there is one."""
    program = find_chromium()
    if program is None:
        raise SystemExit(NO_BROWSER)
    with open_chromium(program) as browser:
        yield browser
