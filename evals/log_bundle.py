"""inspect's own viewer with all logs, as a folder of files that any web server can show.

The logs can then be read where inspect is not installed. A policy in the viewer's page forbids the
browser to load anything from elsewhere; a bundle without that policy is not handed out.
"""

import importlib.metadata
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from inspect_ai.log import bundle_log_dir

from configs.errors import UserError
from data.cache import WRITE_ERRORS, disk_error
from evals.containment import contained

INSIDE = {"'self'", "'none'", "'unsafe-inline'", "'wasm-unsafe-eval'", "data:", "blob:"}
HASH = re.compile(r"'(sha256|sha384|sha512)-[A-Za-z0-9+/=]+'")
CONTEXT = re.compile(
    r'(<script id="log_dir_context" type="application/json">)(.*?)(</script>)', re.S
)


class LogBundle(NamedTuple):
    """A written bundle; page: its address as seen from the folder in which it lies."""

    folder: Path
    num_bytes: int

    @property
    def page(self) -> str:
        """Its first page, for links from beside it."""
        return f"{self.folder.name}/index.html"

    @property
    def command(self) -> str:
        """What shows it to this machine alone, run in the folder in which it lies."""
        return f"python -m http.server --bind 127.0.0.1 --directory {self.folder.name}"


def write_log_bundle(log_dir: Path, folder: Path) -> LogBundle:
    """Write the viewer with all logs below `log_dir` to `folder`, in the place of what was there.

    Browsers show it from a server only (`LogBundle.command`), because they let no page read other
    files of the disk. It does not tell where on this machine the logs lie. Errors: `UserError`
    where the installed viewer would load something from elsewhere, and for a full disk.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        # inspect tells its progress by plain prints.
        with contained(log_dir), redirect_stdout(io.StringIO()):
            bundle_log_dir(str(log_dir.resolve()), str(partial.resolve()), overwrite=True)
        index = partial / "index.html"
        index.write_text(_without_places(index.read_text(encoding="utf-8")), encoding="utf-8")
        _check_contained(index)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        if error.errno in WRITE_ERRORS:
            raise disk_error(error, folder) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = [file for file in folder.rglob("*") if file.is_file()]
    return LogBundle(folder, sum(file.stat().st_size for file in files))


def outside_addresses(html: str) -> list[str]:
    """What a viewer's page loads, or lets its scripts load, from anywhere but its own folder."""
    page = _Page()
    page.feed(html)
    return [*_loaded(page), *_allowed(page.policy)]


class _Page(HTMLParser):
    """The policy, and every address that is loaded with the page."""

    def __init__(self) -> None:
        super().__init__()
        self.policy: str | None = None
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "meta" and values.get("http-equiv", "").lower() == "content-security-policy":
            self.policy = values.get("content", "")
        self.addresses += [values[name] for name in ("src", "href") if name in values]


def _loaded(page: _Page) -> Iterator[str]:
    for address in page.addresses:
        if re.match(r"[a-z][a-z0-9+.-]*:|//", address.strip(), re.IGNORECASE):
            yield address


def _allowed(policy: str | None) -> Iterator[str]:
    """Sources outside; without a policy, or one that is not closed by default, anything at all."""
    directives = [part.split() for part in (policy or "").split(";") if part.strip()]
    if ["default-src", "'none'"] not in directives:
        yield "anything: its content security policy is missing or open"
    for name, *sources in directives:
        for source in sources:
            if source not in INSIDE and not HASH.fullmatch(source):
                yield f"{name} {source}"


def _without_places(html: str) -> str:
    """The page without the log folder's absolute path, which would tell of this machine."""

    def keep_relative(match: re.Match[str]) -> str:
        context = {"log_dir": json.loads(match[2])["log_dir"]}
        return match[1] + json.dumps(context) + match[3]

    return CONTEXT.sub(keep_relative, html)


def _check_contained(index: Path) -> None:
    outside = outside_addresses(index.read_text(encoding="utf-8"))
    if outside:
        version = importlib.metadata.version("inspect-ai")
        raise UserError(
            f"the log viewer of inspect-ai {version} would load from elsewhere: {outside[0]}",
            where="inspect-ai",
            remedy="install the version of inspect-ai that constraints.txt names",
        )
