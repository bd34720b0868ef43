"""The page and its files, with the policy that keeps what models say from acting in it."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from serve.errors import nothing_there

ASSETS = Path(__file__).parent / "assets"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    [
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
    ]
)
REPORT_POLICY = "; ".join(
    [
        # Without `allow-same-origin` a report cannot reach the page's key, history or interface.
        "sandbox allow-scripts allow-popups allow-downloads",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
        "img-src data:",
        "font-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Asked anew each time, which the tag makes cheap: a newer server has a newer page.
    "Cache-Control": "no-cache",
}
REPORT_HEADERS = HEADERS | {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"}


async def page(request: Request) -> Response:
    """The page itself."""
    return _asset(request, "index.html")


async def asset(request: Request) -> Response:
    """One of its files; raises `ApiError` (404) for any other name."""
    return _asset(request, request.path_params["name"])


def report(file: Path) -> Response:
    """A report of a run, closed off from the page that links to it."""
    return Response(file.read_bytes(), media_type=MEDIA_TYPES[".html"], headers=REPORT_HEADERS)


def _asset(request: Request, name: str) -> Response:
    content = _assets().get(name)
    if content is None:
        raise nothing_there(request.url.path)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


@cache
def _assets() -> Mapping[str, bytes]:
    """All files by name: what is not among them cannot be asked for."""
    files = (file for file in ASSETS.iterdir() if file.suffix in MEDIA_TYPES)
    return {file.name: file.read_bytes() for file in files}
