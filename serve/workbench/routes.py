"""The workbench's own paths: what its page asks beside the completion interface.

All but the page, its files and `about` need an API key where the server asks for keys. A report is
opened by a link, which carries none: a cookie stands for it, which scripts cannot read and which is
sent to reports alone.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from configs.errors import UserError
from data.votes import PostedVote, Vote, append_vote, count_votes, read_votes
from data.word_diff import Piece, compare_words
from serve.access.sessions import Sessions
from serve.errors import ApiError, nothing_there
from serve.request.body import Body
from serve.request.read_body import T, parse_body, read_body
from serve.service import Service
from serve.workbench.calls import render_calls
from serve.workbench.folder import Workbench
from serve.workbench.markdown import MAX_CHARACTERS, render_markdown
from serve.workbench.page import asset, page, report
from serve.workbench.runs import describe_runs, find_report, find_run
from serve.workbench.samples import find_samples

logger = logging.getLogger(__name__)

API = "/workbench/api"
REPORTS = "/workbench/runs"
COOKIE = "tunery_session"


class _Text(Body):
    """What is to be rendered."""

    text: str = Field(max_length=MAX_CHARACTERS)


class _Texts(Body):
    """What is to be compared."""

    a: str = Field(max_length=MAX_CHARACTERS)
    b: str = Field(max_length=MAX_CHARACTERS)


class _Call(Body):
    """The request whose code is to be written; url: up to `/v1`."""

    url: str = Field(pattern=r"^https?://[^\s\"'\\`$]+$", max_length=2000)
    body: dict[str, Any]


def workbench_routes(service: Service) -> list[Route]:
    """The page and its interface; nothing where the server has no workbench."""
    if service.workbench is None:
        return []
    endpoints = _Endpoints(service, service.workbench)
    paths = [
        Route("/", page),
        Route("/workbench/assets/{name}", asset),
        Route(f"{API}/about", endpoints.about),
        Route(f"{API}/markdown", endpoints.markdown, methods=["POST"]),
        Route(f"{API}/diff", endpoints.diff, methods=["POST"]),
        Route(f"{API}/calls", endpoints.calls, methods=["POST"]),
        Route(f"{API}/votes", endpoints.vote, methods=["POST"]),
        Route(f"{API}/votes", endpoints.votes),
        Route(f"{API}/runs", endpoints.runs),
        Route(f"{API}/samples", endpoints.samples),
        Route(f"{API}/session", endpoints.session, methods=["POST"]),
        Route(REPORTS + "/{name}/{stage}/report.html", endpoints.report),
    ]
    for path in paths:
        # Made for this page and with it, not for clients.
        path.include_in_schema = False
    return paths


class _Endpoints:
    """What the page asks."""

    def __init__(self, service: Service, workbench: Workbench) -> None:
        self._service = service
        self._workbench = workbench
        self._sessions = Sessions(service.keys)

    async def about(self, request: Request) -> Response:
        """What the page has to know before it has a key."""
        return JSONResponse(
            {
                "asks_for_keys": self._service.keys.asks_for_keys,
                "keeps_votes": self._workbench.votes_file is not None,
                "runs": list(self._workbench.served),
                "version": version("tunery"),
            }
        )

    async def markdown(self, request: Request) -> Response:
        """A text as HTML that is safe to show."""
        told = await self._read(request, _Text)
        return JSONResponse({"html": await asyncio.to_thread(render_markdown, told.text)})

    async def diff(self, request: Request) -> Response:
        """Two texts in pieces, those marked that the other one lacks."""
        told = await self._read(request, _Texts)
        a, b = await asyncio.to_thread(compare_words, told.a, told.b)
        return JSONResponse({"a": _pieces(a), "b": _pieces(b)})

    async def calls(self, request: Request) -> Response:
        """The code of a request, for each kind of client."""
        told = await self._read(request, _Call)
        calls = render_calls(told.body, url=told.url)
        return JSONResponse({"calls": [call._asdict() for call in calls]})

    async def vote(self, request: Request) -> Response:
        """Keep a vote."""
        posted = await self._read(request, PostedVote)
        vote = Vote.of(posted, client=self._service.identify(request))
        with _told():
            await asyncio.to_thread(append_vote, self._votes_file(), vote)
        return JSONResponse({"id": vote.id}, status_code=201)

    async def votes(self, request: Request) -> Response:
        """How many votes there are for whom."""
        self._service.identify(request)
        with _told():
            votes = await asyncio.to_thread(read_votes, self._votes_file())
        return JSONResponse({"pairs": [asdict(count) for count in count_votes(votes)]})

    async def runs(self, request: Request) -> Response:
        """The runs, each with what is known of it."""
        self._service.identify(request)
        folder, served = self._workbench.runs_folder, self._workbench.served
        runs = await asyncio.to_thread(describe_runs, folder, served) if folder else []
        return JSONResponse({"runs": runs})

    async def samples(self, request: Request) -> Response:
        """Questions of a run's last evaluation, with both sides' answers."""
        self._service.identify(request)
        query = request.query_params
        found = await asyncio.to_thread(
            find_samples,
            self._samples_file(request),
            task=query.get("task", ""),
            outcome=query.get("outcome", ""),
            search=query.get("search", ""),
            offset=_number(query.get("offset", "0"), "offset"),
            limit=_number(query.get("limit", "50"), "limit"),
        )
        return JSONResponse(found)

    async def session(self, request: Request) -> Response:
        """Lets this browser open reports for a while, as the key of this request allows."""
        answer = Response(status_code=204)
        token = self._sessions.open(request.headers.get("authorization"))
        answer.set_cookie(
            COOKIE,
            token,
            path=REPORTS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def report(self, request: Request) -> Response:
        """A report, for a key or for the session that one has opened."""
        token = request.cookies.get(COOKIE, "")
        authorization = request.headers.get("authorization")
        self._service.keys.check(
            authorization or self._sessions.authorization_of(token), counted=False
        )
        folder = self._folder(request)
        told = request.path_params
        file = await asyncio.to_thread(find_report, folder, told["name"], told["stage"])
        return await asyncio.to_thread(report, file)

    async def _read(self, request: Request, model: type[T]) -> T:
        """The body of a request by somebody who may ask."""
        self._service.identify(request)
        max_bytes = self._service.max_body_bytes
        return parse_body(model, await read_body(request, max_bytes=max_bytes))

    def _folder(self, request: Request) -> Path:
        if self._workbench.runs_folder is None:
            raise nothing_there(request.url.path)
        return self._workbench.runs_folder

    def _samples_file(self, request: Request) -> Path:
        name = request.query_params.get("run") or next(iter(self._workbench.served), "")
        return find_run(self._folder(request), name) / "evals" / "samples.jsonl"

    def _votes_file(self) -> Path:
        if self._workbench.votes_file is None:
            raise ApiError(404, "resource_not_found", "this server has no folder to keep votes in")
        return self._workbench.votes_file


@contextmanager
def _told() -> Iterator[None]:
    """What the server's user has to mend is told to who asks, and logged with the place."""
    try:
        yield
    except UserError as error:
        logger.error("%s", error)
        raise ApiError(500, "unknown_error", error.what) from error


def _pieces(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    return [piece._asdict() for piece in pieces]


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ApiError(400, "invalid_params", f"{name}: must be a whole number", param=name)
    return int(text)
