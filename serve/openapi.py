"""The OpenAPI document of the completion interface: what is taken, what comes back, and when.

Written from the same models that check requests, and by hand where answers are: they are written as
they are made, so no framework knows their shape.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from serve.engine import EngineModel
from serve.models_list import ENDPOINT
from serve.openapi_answers import ANSWERS, to
from serve.request.json_schema import request_definitions

Document = dict[str, Any]

PREFIXES = ("/v1", "/api/ai", "/mistral/v1")
MISTRAL_PREFIX = "/mistral/v1"
"""Errors have Mistral's shape here, and faults of fields are 422."""

REASONS = {
    400: "The request cannot be honoured; the error names the field.",
    401: "No API key, or none that is known.",
    404: "No such model.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "A field cannot be honoured; each is named.",
    429: "Too many requests; `Retry-After` says when to come back.",
    500: "The engine failed.",
    503: "Loading, draining or restarting; `Retry-After` says when to come back.",
}
RETRIES = (429, 503)
OF_ANY_CALL = (401, 429)
JSON = "application/json"
OWN_PATH = "/openapi.json"


def openapi_document(app: Starlette, *, models: Mapping[str, EngineModel], keys: bool) -> Document:
    """The document of what `app` answers.

    models: who answers, by the names that clients say; keys: whether an API key is asked for.
    Raises `ValueError` when the application has a path that is not described here, but for those
    that it keeps out of its schema (`include_in_schema=False`) and the document's own.
    """
    paths = dict(_paths(keys=keys))
    found = set(_served_paths(app.routes))
    strangers = found - paths.keys() - {OWN_PATH}
    if strangers:
        raise ValueError(f"not described: {', '.join(sorted(strangers))}")
    schemas = request_definitions("#/components/schemas/{model}", models) | ANSWERS
    components: Document = {"schemas": schemas}
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tunery", "version": version("tunery")},
        "paths": {path: paths[path] for path in paths if path in found},
        "components": components,
    }


def _served_paths(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[str]:
    """The paths of all routes, of mounted ones too."""
    for route in routes:
        if isinstance(route, Mount):
            yield from _served_paths(route.routes, prefix + route.path)
        elif isinstance(route, Route) and route.include_in_schema:
            yield prefix + route.path_format


def _paths(*, keys: bool) -> Iterator[tuple[str, Document]]:
    for prefix in PREFIXES:
        of = _Answers(mistral=prefix == MISTRAL_PREFIX, keys=keys)
        yield prefix + ENDPOINT, {"post": _completion(of)}
        yield f"{prefix}/models", {"get": of.operation("List the models", "ModelList")}
        search = of.operation("Find models by name or description", "ModelList")
        yield f"{prefix}/models/search", {"get": search | {"parameters": [_search_text()]}}
        one = of.operation("Describe a model", "Model", 404)
        yield f"{prefix}/models/{{name}}", {"get": one | {"parameters": [_model_name()]}}
    yield "/health/live", {"get": _probe("Whether the process answers", 200)}
    yield "/health/ready", {"get": _probe("Whether requests are taken", 200, 503)}
    yield "/health", {"get": _probe("How it is", 200, 503)}
    yield "/metrics", {"get": {"summary": "Prometheus metrics", "responses": {"200": _metrics()}}}


class _Answers:
    """What calls below one prefix are answered with."""

    def __init__(self, *, mistral: bool, keys: bool) -> None:
        self._mistral = mistral
        self._keys = keys

    def operation(self, summary: str, schema: str, *statuses: int) -> Document:
        """An operation that answers 200 with `schema`, or an error with one of `statuses`."""
        responses: Document = {"200": _json("The answer.", to(schema))}
        every = {*statuses, *(OF_ANY_CALL if self._keys else ())}
        responses |= {str(status): self._error(status) for status in sorted(every)}
        security: Document = {"security": [{"key": []}]} if self._keys else {}
        return {"summary": summary, "responses": responses, **security}

    def completion_statuses(self) -> tuple[int, ...]:
        """Errors that a completion may end with."""
        of_fields = (422,) if self._mistral else ()
        return (400, *of_fields, 404, 413, 415, 429, 500, 503)

    def event(self) -> Document:
        """One event of a stream: before its version 3.2, OpenAPI describes streams by it."""
        pieces = {"anyOf": [to("ChatCompletionChunk"), self._error_schema()]}
        piece = {"type": "string", "contentMediaType": JSON, "contentSchema": pieces}
        data = {
            "anyOf": [{"const": "[DONE]"}, piece],
            "description": "A piece of the answer; the last event's is `[DONE]`, or the error with "
            "which a stream breaks off. Comments between them keep the connection open.",
        }
        return {"type": "object", "properties": {"data": data}, "required": ["data"]}

    def _error_schema(self) -> Document:
        return to("MistralError") if self._mistral else to("Error")

    def _error(self, status: int) -> Document:
        schema = self._error_schema()
        if status == 422:
            schema = to("MistralFaults")
        answer = _json(REASONS[status], schema)
        if status in RETRIES:
            seconds = {"type": "integer", "minimum": 1}
            answer["headers"] = {
                "Retry-After": {"description": "Seconds.", "required": True, "schema": seconds}
            }
        return answer


def _completion(of: _Answers) -> Document:
    operation = of.operation("Answer a conversation", "ChatCompletion", *of.completion_statuses())
    stream = {"schema": of.event()}
    operation["responses"]["200"]["content"]["text/event-stream"] = stream
    body = {"required": True, "content": {JSON: {"schema": to("ChatRequest")}}}
    return operation | {"requestBody": body}


def _json(description: str, schema: Document) -> Document:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _search_text() -> Document:
    told = "Words that the models' names or descriptions hold; all models when absent."
    return {"name": "search", "in": "query", "description": told, "schema": {"type": "string"}}


def _model_name() -> Document:
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _probe(summary: str, *statuses: int) -> Document:
    told = {200: "Yes.", 503: "Not now."}
    responses = {str(status): _json(told[status], to("Health")) for status in statuses}
    return {"summary": summary, "responses": responses}


def _metrics() -> Document:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {"description": "In Prometheus' text format.", "content": content}
