"""The completion interface: the hosted one's paths, bodies and errors in front of the engines.

`/v1` (OpenAI's and Mistral's clients), `/api/ai` (the hosted interface's) and `/mistral/v1` answer
alike; on the last one errors have the shapes and statuses of Mistral's own endpoint.
"""

import json
import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from serve.chat_endpoint import ChatCompletions
from serve.engine import EngineError, RequestRefused
from serve.errors import ApiError, from_engine, nothing_there
from serve.metrics import CONTENT_TYPE
from serve.models_list import models_list, search
from serve.openapi import openapi_document
from serve.request_log import RequestLog
from serve.service import Service
from serve.workbench.routes import workbench_routes

MISTRAL_PREFIX = "/mistral/v1"
PREFIXES = ("/v1", "/api/ai", MISTRAL_PREFIX)
CLIENT_GONE = 499
"""Status of an answer that nobody waits for any more; only logs ever show it."""


def build_app(service: Service) -> ASGIApp:
    """The application that answers with `service`, whose engines may still be loading."""
    interface = _Interface(service)
    app = Starlette(
        routes=[
            *(Mount(prefix, routes=interface.routes()) for prefix in PREFIXES),
            Route("/health", interface.health_ready),
            Route("/health/ready", interface.health_ready),
            Route("/health/live", interface.health_live),
            Route("/metrics", interface.metrics),
            Route("/openapi.json", interface.openapi),
            *workbench_routes(service),
        ],
        exception_handlers={
            ApiError: _fault,
            RequestRefused: _fault,
            EngineError: _fault,
            HTTPException: _http_error,
            ClientDisconnect: _client_gone,
            Exception: _fault,
        },
    )
    return RequestLog(app)


class _Interface:
    """All endpoints but that of chat completions."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        """The endpoints below each prefix."""
        chat = ChatCompletions(self._service, on_error=_answer_error, error_body=_error_body)
        return [
            Route("/chat/completions", chat, methods=["POST"]),
            Route("/models", self.list_models),
            Route("/models/search", self.search_models),
            Route("/models/{name:path}", self.retrieve_model),
        ]

    def _objects(self, request: Request) -> list[dict[str, Any]]:
        """Each model's object, for a client that may see them."""
        self._service.identify(request)
        models = self._service.models.values()
        return [model.to_json(created=self._created) for model in models]

    async def list_models(self, request: Request) -> Response:
        """All models that answer here."""
        return JSONResponse(models_list(self._objects(request)))

    async def search_models(self, request: Request) -> Response:
        """The models that `?search=` finds."""
        text = request.query_params.get("search", "")
        return JSONResponse(models_list(search(self._objects(request), text)))

    async def retrieve_model(self, request: Request) -> Response:
        """One model's object."""
        self._service.identify(request)
        model = self._service.model(request.path_params["name"])
        return JSONResponse(model.to_json(created=self._created))

    async def health_live(self, request: Request) -> Response:
        """200 as long as the process answers at all."""
        return JSONResponse({"status": "ok"})

    async def health_ready(self, request: Request) -> Response:
        """200 where every model would answer now; 503 while one loads, and once it drains."""
        state = self._service.state
        return JSONResponse(
            {"status": state, "models": list(self._service.models)},
            status_code=200 if state == "ok" else 503,
        )

    async def metrics(self, request: Request) -> Response:
        """What was measured, for Prometheus."""
        return Response(self._service.metrics.render(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """What is taken and answered here."""
        models = {name: model.engine_model for name, model in self._service.models.items()}
        keys = self._service.keys.asks_for_keys
        return JSONResponse(openapi_document(request.app, models=models, keys=keys))


def _is_mistrals(request: Request) -> bool:
    return request.url.path.startswith(MISTRAL_PREFIX + "/")


def _error_body(request: Request, error: ApiError) -> dict[str, Any]:
    """An error in the shape of the path that was asked."""
    return error.mistral_body() if _is_mistrals(request) else error.body()


def _answer_error(request: Request, error: ApiError) -> Response:
    status = error.mistral_status if _is_mistrals(request) else error.status
    # In ASCII: an error may quote what a client sent, which need not be encodable text.
    body = json.dumps(_error_body(request, error))
    return Response(body, status, error.headers(), media_type="application/json")


async def _fault(request: Request, error: Exception) -> Response:
    return _answer_error(request, from_engine(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _answer_error(request, nothing_there(request.url.path))
    answer = _answer_error(request, ApiError(error.status_code, "invalid_params", error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
