"""The completion interface: the hosted one's paths, bodies and errors in front of an engine.

Both `/v1` (OpenAI's clients) and `/api/ai` (the hosted interface's) answer the same way.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serve.completions import ChatRequest
from serve.engine import (
    ContextExceeded,
    Engine,
    EngineError,
    Event,
    Finish,
    RequestRefused,
    TextDelta,
)
from serve.errors import ApiError, invalid_request

T = TypeVar("T")

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status of an answer that nobody waits for any more; only logs ever show it."""


def build_app(*, engine: Engine, model_names: Sequence[str]) -> FastAPI:
    """The application that answers for a loaded engine.

    model_names: the model's name, then its aliases; a request for any other name is a 404.
    """
    app = FastAPI(title="Tunery", exception_handlers=_exception_handlers())
    models = {name: _model_card(name, engine) for name in model_names}
    for prefix in ("/v1", "/api/ai"):
        app.include_router(_build_router(engine, models), prefix=prefix)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": model_names[0]}

    return app


def _build_router(engine: Engine, models: dict[str, dict[str, Any]]) -> APIRouter:
    router = APIRouter()

    def model_card(name: str) -> dict[str, Any]:
        if name not in models:
            raise ApiError(
                404,
                "resource_not_found",
                f"Model not found: {name}",
                param="model",
                code="model_not_found",
            )
        return models[name]

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(models.values())}

    @router.get("/models/{name:path}")
    async def retrieve_model(name: str) -> dict[str, Any]:
        return model_card(name)

    @router.post("/chat/completions", response_model=None)
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        model_card(body.model)
        events = engine.complete(body.to_completion())
        try:
            if not body.stream:
                return JSONResponse(await _while_connected(request, _whole(body, events)))
            # The first event is waited for, so that what the engine refuses gets its own status.
            first = await _while_connected(request, anext(events))
        except BaseException:
            await events.aclose()
            raise
        return StreamingResponse(
            _stream(body, first, events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    return router


def _model_card(name: str, engine: Engine) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "tunery",
        "display_name": name,
        "endpoint": "/chat/completions",
        "capabilities": {"input": ["text"], "output": ["text"]},
        "context_length": engine.context_length,
    }


def _head(body: ChatRequest, kind: str) -> dict[str, Any]:
    """What the answer and all chunks of a stream begin with."""
    return {
        "id": f"chatcmpl-{uuid.uuid4()}",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
    }


def _usage(finish: Finish) -> dict[str, int]:
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
    }


async def _whole(body: ChatRequest, events: AsyncIterator[Event]) -> dict[str, Any]:
    """The answer in one piece."""
    texts: list[str] = []
    async for event in events:
        if isinstance(event, TextDelta):
            texts.append(event.text)
        else:
            message = {"role": "assistant", "content": "".join(texts)}
            choice = {"index": 0, "message": message, "finish_reason": event.reason}
            head = _head(body, "chat.completion")
            return {**head, "choices": [choice], "usage": _usage(event)}
    raise EngineError("the answer has no end")


async def _stream(
    body: ChatRequest, first: Event, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[str, None]:
    """The answer as server-sent events: role, text, reason, counts if asked for, `[DONE]`."""
    head = _head(body, "chat.completion.chunk")

    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _sse({**head, "choices": [choice]})

    async with aclosing(events):
        yield chunk({"role": "assistant", "content": ""})
        event: Event = first
        try:
            while isinstance(event, TextDelta):
                yield chunk({"content": event.text})
                event = await anext(events)
        except (EngineError, RequestRefused) as error:
            yield _sse(_engine_fault(error).body())
            return
        yield chunk({}, event.reason)
        if body.include_usage:
            yield _sse({**head, "choices": [], "usage": _usage(event)})
        yield "data: [DONE]\n\n"


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnection(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _engine_fault(error: Exception) -> ApiError:
    if isinstance(error, RequestRefused):
        code = "context_length_exceeded" if isinstance(error, ContextExceeded) else None
        return ApiError(400, "invalid_params", str(error), param=error.field, code=code)
    logger.error("the engine failed: %s", error)
    return ApiError(500, "unknown_error", f"the engine failed: {error}")


def _exception_handlers() -> dict[Any, Any]:
    """Every way in which a request can fail, each answered in the hosted interface's shape."""

    def answer(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
        # In ASCII: an error may quote what a client sent, which need not be encodable text.
        body = json.dumps(error.body())
        return Response(body, error.status, headers, media_type="application/json")

    async def api_error(request: Request, error: ApiError) -> Response:
        return answer(error)

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(invalid_request(error.errors(), known_fields=[*ChatRequest.model_fields]))

    async def engine_fault(request: Request, error: Exception) -> Response:
        return answer(_engine_fault(error))

    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            message = f"there is nothing at {request.url.path}"
            return answer(ApiError(404, "resource_not_found", message))
        return answer(ApiError(error.status_code, "invalid_params", error.detail), error.headers)

    async def client_gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    async def unexpected(request: Request, error: Exception) -> Response:
        return answer(ApiError(500, "unknown_error", "the server failed to answer"))

    return {
        ApiError: api_error,
        RequestValidationError: invalid,
        RequestRefused: engine_fault,
        EngineError: engine_fault,
        HTTPException: http_error,
        ClientDisconnect: client_gone,
        Exception: unexpected,
    }
