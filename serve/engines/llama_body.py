"""Requests in llama.cpp's words, and its refusals in ours."""

import hashlib
from typing import Any

import xllamacpp

from serve.answer_schema import check_schema
from serve.engine import Completion, ForcedFunction, RequestRefused
from serve.engines.llama_answer import SCHEMA_FIELD
from serve.engines.llama_turns import Turn, Turns
from serve.engines.tool_schema import check_tools
from serve.engines.wire_errors import HostError, find_error, read_error

Body = dict[str, Any]
NUM_SEEDS = 0xFFFFFFFF
"""All ones means "draw one" to llama.cpp, so it is folded away with the larger seeds."""
PARSER_FAULT = "Automatic parser generation failed: "
TEMPLATE_FAULT = "Jinja Exception: "


def shared_fields(turns: list[Turn], tools: list[Any]) -> Body:
    """What each evaluation of turns has; `cache_prompt` is to be added."""
    body: Body = {
        "messages": turns,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # told between prompt batches, so that they can be ended
        "timings_per_token": True,  # token counts in every chunk, for answers that we end
    }
    if tools:
        body["tools"] = tools
    return body


def request_fields(request: Completion, *, context_length: int) -> Body:
    """How the answers are drawn: llama.cpp's own samplers are off, only what was asked applies.

    Raises `RequestRefused` for a schema that llama.cpp would not follow.
    """
    body: Body = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        # At temperature 0 the likeliest is taken anyway, and all others need no handling.
        "top_k": 1 if request.temperature == 0 else 0,
        "min_p": 0.0,
        # Both count over the last 64 tokens, those of the prompt included: llama.cpp's way.
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    if request.max_tokens is not None:
        body["max_tokens"] = min(request.max_tokens, context_length)
    if request.top_logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = max(1, request.top_logprobs)
    return body | _tool_fields(request) | _json_fields(request)


def seed_fields(seed: int | None, choice: int) -> Body:
    """llama.cpp's seed for one of a request's answers: the request's own for the first."""
    if seed is None:
        return {}
    if choice:
        digest = hashlib.sha256(f"{seed}:{choice}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big")
    return {"seed": seed % NUM_SEEDS}


def offered_tools(request: Completion) -> list[Any]:
    """The tools that the model is told. Raises `RequestRefused` for what would be misread."""
    check_tools(request.tools)
    choice = request.tool_choice
    if not isinstance(choice, ForcedFunction):
        return list(request.tools)
    # llama.cpp knows no forced function: it is the only one there is.
    tools = [tool for tool in request.tools if tool["function"]["name"] == choice.name]
    if not tools:
        raise RequestRefused(
            f"`tool_choice` names the function {choice.name}, which is not among `tools`",
            field="tool_choice",
        )
    return tools[:1]


def prefix_body(turns: Turns) -> Body:
    """Evaluates the turns before the last one, and answers nothing; needs `cache_prompt`."""
    body = shared_fields(turns.prefix, turns.prefix_tools)
    return body | {"add_generation_prompt": False, "max_tokens": 0}


def refusal(status: int, body: Body) -> Exception:
    """What llama.cpp's answer amounts to that is no stream, as `Engine.complete` raises it."""
    error = find_error(body) or HostError("no reason was given")
    if status != 400 or error.counts is not None:
        return read_error(error, status=status)
    message = error.message
    _, from_template, reason = message.rpartition(TEMPLATE_FAULT)
    if from_template:
        return RequestRefused(
            f"the model's chat template refuses the conversation: {reason}", field="messages"
        )
    _, from_tools, reason = message.rpartition(PARSER_FAULT)
    if from_tools:
        return RequestRefused(f"llama.cpp cannot follow the tools: {reason}", field="tools")
    return RequestRefused(f"llama.cpp refuses the request: {message}", field=error.field)


def _tool_fields(request: Completion) -> Body:
    if not request.tools:
        return {}
    if request.top_logprobs is not None:
        raise RequestRefused(
            "llama.cpp tells no log-probabilities where there are tools", field="logprobs"
        )
    forced = isinstance(request.tool_choice, ForcedFunction)
    return {
        "tool_choice": "required" if forced else request.tool_choice,
        "parallel_tool_calls": request.parallel_tool_calls and not forced,
    }


def _json_fields(request: Completion) -> Body:
    if request.json_answer is None:
        return {}
    if request.tools and request.tool_choice != "none":
        raise RequestRefused(
            "llama.cpp cannot hold answers to JSON where tools may be called",
            field="response_format",
        )
    schema = request.json_answer.schema
    if schema is not None:
        try:
            check_schema(schema)
        except ValueError as error:
            raise RequestRefused(str(error), field=SCHEMA_FIELD) from error
    # Not as `response_format`: llama.cpp then parses the answer again at its end, and fails
    # on one that `max_tokens` cut within a character.
    grammar = xllamacpp.json_schema_to_grammar(dict(schema or {"type": "object"}))
    return {"grammar": grammar}
