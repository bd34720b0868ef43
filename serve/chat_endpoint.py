"""`POST …/chat/completions`: from a request's bytes to an answer on its way."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.answers import AnswerStream, whole_answer
from serve.engine import (
    ChoiceEnd,
    Completion,
    EngineError,
    Events,
    RequestRefused,
    Usage,
)
from serve.errors import ApiError, from_engine, unavailable
from serve.request.chat_request import ChatRequest, parse_chat_request
from serve.request.read_body import read_body
from serve.request_log import note, note_first_token, request_id
from serve.routing import Answering
from serve.service import Service
from serve.streamed_answer import StreamedAnswer, disconnection

T = TypeVar("T")

DRAIN_RETRY_AFTER_S = 5.0


class ChatCompletions:
    """The endpoint as an ASGI application, so that a request counts until its last word is sent.

    on_error, error_body: make the answer to a request that is refused, and the last event of a
    stream that breaks off, in the shape of the path that was asked.
    """

    def __init__(
        self,
        service: Service,
        *,
        on_error: Callable[[Request, ApiError], Response],
        error_body: Callable[[Request, ApiError], dict[str, Any]],
    ) -> None:
        self._service = service
        self._on_error = on_error
        self._error_body = error_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        with self._service.request():
            try:
                answer = await self._answer(request)
            except (ApiError, EngineError, RequestRefused) as error:
                answer = self._refuse(request, from_engine(error))
            await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        service = self._service
        client = service.identify(request, counted=True)
        body = parse_chat_request(await read_body(request, max_bytes=service.max_body_bytes))
        model = service.model(body.model)
        # Only names that are configured: what a client makes up must not make series of metrics.
        request.state.model = model.name
        note(model=model.name, stream=body.stream)
        if service.draining:
            raise unavailable("the server is stopping", retry_after_s=DRAIN_RETRY_AFTER_S)
        if body.user:
            # Who should always meet the same model is a client's end user, where it names one.
            client = f"{client}/{body.user}"
        body.check_model(model.model_for(client))
        completion = body.to_completion(images=await self._load_images(request, body))
        answering = model.route.answer(completion, client=client, request_id=request_id())
        if body.stream:
            return self._stream(request, body, completion, answering)
        return await self._whole(request, body, completion, answering)

    def _refuse(self, request: Request, fault: ApiError) -> Response:
        """The answer to a request that gets no other."""
        model = getattr(request.state, "model", "")
        self._service.metrics.count_refusal(model, fault.status)
        return self._on_error(request, fault)

    async def _load_images(self, request: Request, body: ChatRequest) -> dict[str, str]:
        """Each image's address as it was sent, and the `data:` URL that stands for it."""
        fields = {url: field for field, url in body.images()}
        if not fields:
            return {}
        load = self._service.images.load
        loads = asyncio.gather(*(load(url, field=field) for url, field in fields.items()))
        return dict(zip(fields, await _while_connected(request, loads), strict=True))

    def _stream(
        self, request: Request, body: ChatRequest, completion: Completion, answering: Answering
    ) -> Response:
        chunks = AnswerStream(
            model=body.model, request=completion, include_usage=body.include_usage
        )
        return StreamedAnswer(
            _noted(answering),
            chunks,
            target=lambda: answering.target,
            keep_alive_s=self._service.keep_alive_s,
            on_error=lambda error: self._refuse(request, error),
            error_body=lambda error: self._error_body(request, error),
        )

    async def _whole(
        self, request: Request, body: ChatRequest, completion: Completion, answering: Answering
    ) -> Response:
        async with aclosing(_noted(answering)) as events:
            whole = whole_answer(events, model=body.model, request=completion)
            content = await _while_connected(request, whole)
        note(target=answering.target)
        headers = {"X-Tunery-Target": answering.target}
        return Response(content, headers=headers, media_type="application/json")


async def _noted(answering: Answering) -> Events:
    """The answer's events; the request's line in the log tells of them."""
    async with aclosing(answering.events) as events:
        async for event in events:
            if isinstance(event, Usage):
                note(prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens)
            elif isinstance(event, ChoiceEnd):
                note(finish_reason=event.reason)
            else:
                note_first_token()
            yield event


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnection(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
