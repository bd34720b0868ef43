"""The shapes of everything that the completion interface answers, as JSON Schemas by name."""

from typing import Any

from serve.errors import MISTRAL_TYPES, TITLES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANY_TEXT: Schema = {"type": ["string", "null"]}
FINISH_REASONS = ["stop", "length", "tool_calls", "content_filter"]


def to(name: str) -> Schema:
    """A reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def an_object(fields: Schema, *, optional: tuple[str, ...] = (), closed: bool = True) -> Schema:
    """An object of these fields; all but `optional` are always there."""
    required = [name for name in fields if name not in optional]
    schema = {"type": "object", "properties": fields, "required": required}
    return schema | ({"additionalProperties": False} if closed else {})


def a_list(items: Schema) -> Schema:
    """An array of such elements."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def _token(**further: Schema) -> Schema:
    byte = {"type": "integer", "minimum": 0, "maximum": 255}
    logprob = {"type": "number", "maximum": 0}
    return an_object({"token": TEXT, "bytes": or_null(a_list(byte)), "logprob": logprob, **further})


def _choice(**content: Schema) -> Schema:
    reason: Schema = {"enum": FINISH_REASONS}
    return an_object(
        {
            "index": COUNT,
            **content,
            "logprobs": or_null(to("Logprobs")),
            "finish_reason": or_null(reason) if "delta" in content else reason,
        },
        optional=("logprobs",),
    )


def _head(kind: str, **further: Schema) -> Schema:
    optional = ("usage",) if kind.endswith("chunk") else ()
    head: Schema = {"id": TEXT, "object": {"const": kind}, "created": COUNT, "model": TEXT}
    return an_object({**head, **further}, optional=optional)


ROLE: Schema = {"const": "assistant"}

COMPLETIONS: Schema = {
    "ChatCompletion": _head("chat.completion", choices=a_list(to("Choice")), usage=to("Usage")),
    "ChatCompletionChunk": _head(
        "chat.completion.chunk", choices=a_list(to("ChunkChoice")), usage=or_null(to("Usage"))
    ),
    "Choice": _choice(message=to("AnswerMessage")),
    "ChunkChoice": _choice(delta=to("AnswerDelta")),
    "AnswerMessage": an_object(
        {
            "role": ROLE,
            "content": ANY_TEXT,
            "refusal": {"type": "null"},
            "tool_calls": a_list(to("ToolCall")),
        },
        optional=("refusal", "tool_calls"),
    ),
    "AnswerDelta": an_object(
        {"role": ROLE, "content": ANY_TEXT, "tool_calls": a_list(to("ToolCallPiece"))},
        optional=("role", "content", "tool_calls"),
    ),
    "ToolCall": an_object(
        {
            "id": TEXT,
            "index": COUNT,
            "type": {"const": "function"},
            "function": an_object({"name": TEXT, "arguments": TEXT}),
        },
        optional=("index",),
    ),
    "ToolCallPiece": an_object(
        {
            "index": COUNT,
            "id": TEXT,
            "type": {"const": "function"},
            "function": an_object(
                {"name": TEXT, "arguments": TEXT}, optional=("name", "arguments")
            ),
        },
        optional=("id", "type"),
    ),
    "Logprobs": an_object(
        {"content": or_null(a_list(to("TokenLogprob"))), "refusal": {"type": "null"}},
        optional=("refusal",),
    ),
    "TokenLogprob": _token(top_logprobs=a_list(to("TokenAlternative"))),
    "TokenAlternative": _token(),
    "Usage": an_object({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT}),
}

MODELS: Schema = {
    "Model": an_object(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": COUNT,
            "owned_by": TEXT,
            "name": TEXT,
            "display_name": TEXT,
            "description": ANY_TEXT,
            "summary": ANY_TEXT,
            "model_type": {"enum": ["base", "custom"]},
            "type": {"const": "base"},
            "endpoint": TEXT,
            "capabilities": {"type": "object"},
            "max_context_length": {"type": "integer", "minimum": 1},
            "aliases": a_list(TEXT),
            "default_model_temperature": {"type": "number"},
            "deprecation": {"type": "null"},
            "pricing": {"type": "null"},
            "fine_tuning": {"type": "null"},
            "deployments": {"type": "array", "maxItems": 0},
            "developer": {"type": "null"},
            "source_model": ANY_TEXT,
            "image_url": {"type": "null"},
            "released_at": {"type": "string", "format": "date-time"},
            "request_schema": {"type": "object"},
            "json_request_schema": {"type": "object"},
        },
        optional=("max_context_length",),
    ),
    "ModelList": an_object({"object": {"const": "list"}, "data": a_list(to("Model"))}),
}

ERRORS: Schema = {
    "Error": an_object(
        {
            "error": an_object(
                {
                    "message": TEXT,
                    "type": {"enum": list(TITLES)},
                    "param": ANY_TEXT,
                    "code": ANY_TEXT,
                    "title": {"enum": list(TITLES.values())},
                    "detail": TEXT,
                }
            ),
            "status": {"const": "error"},
            "status_message": {"enum": list(TITLES)},
        }
    ),
    "MistralError": an_object(
        {
            "object": {"const": "error"},
            "message": TEXT,
            "type": {"enum": list(dict.fromkeys(MISTRAL_TYPES.values()))},
            "param": ANY_TEXT,
            "code": ANY_TEXT,
        }
    ),
    "MistralFaults": an_object(
        {
            "detail": a_list(
                an_object(
                    {"loc": a_list({"type": ["string", "integer"]}), "msg": TEXT, "type": TEXT}
                )
            )
        }
    ),
}

HEALTH: Schema = {"Health": an_object({"status": TEXT}, closed=False)}

ANSWERS: Schema = COMPLETIONS | MODELS | ERRORS | HEALTH
