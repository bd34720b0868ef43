"""A completion as the request body of a host that speaks OpenAI's wire or Mistral's.

Only what differs from every host's own default is sent: strict ones refuse a field they do not
know, even where it asks for nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal

from data.conversation import Message, ToolCall
from data.tokens.mistral_call_ids import mistral_call_ids
from serve.engine import Completion, ForcedFunction, JsonAnswer, RequestRefused, ToolChoice

Dialect = Literal["openai", "mistral"]
"""mistral: fields that are unknown get a 422, `seed` is `random_seed`, usage is always told, calls
have ids of nine letters, and there are no log-probabilities."""

Json = dict[str, Any]

OPENAI_SEEDS = 2**63
MISTRAL_SEEDS = 2**31


def build_body(request: Completion, *, dialect: Dialect = "openai") -> Json:
    """The body that asks for a stream of the answers, with usage at its end.

    Raises `RequestRefused` for what the dialect cannot say.
    """
    mistral = dialect == "mistral"
    messages = with_mistral_ids(request.messages) if mistral else request.messages
    body: Json = {
        "model": request.model,
        "messages": messages,
        "stream": True,
        "temperature": request.temperature,  # the one default in which hosts differ
    }
    if not mistral:
        body["stream_options"] = {"include_usage": True}
    _add_sampling(body, request)
    if request.seed is not None:
        # Larger seeds are folded into what hosts take; all that fit stay what they are.
        if mistral:
            body["random_seed"] = request.seed % MISTRAL_SEEDS
        else:
            body["seed"] = _fold_seed(request.seed)
    if request.top_logprobs is not None:
        if mistral:
            raise RequestRefused("this host tells no log-probabilities", field="logprobs")
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.tools:
        _add_tools(body, request)
    if request.json_answer is not None:
        body["response_format"] = _response_format(request.json_answer)
    return body


def _add_sampling(body: Json, request: Completion) -> None:
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    # At temperature 0 it has no effect, but Mistral refuses it.
    if request.top_p != 1.0 and request.temperature > 0:
        body["top_p"] = request.top_p
    if request.frequency_penalty:
        body["frequency_penalty"] = request.frequency_penalty
    if request.presence_penalty:
        body["presence_penalty"] = request.presence_penalty
    if request.stop:
        body["stop"] = request.stop
    if request.num_choices != 1:
        body["n"] = request.num_choices


def _fold_seed(seed: int) -> int:
    return seed if -OPENAI_SEEDS <= seed < OPENAI_SEEDS else seed % OPENAI_SEEDS


def _add_tools(body: Json, request: Completion) -> None:
    body["tools"] = request.tools
    if request.tool_choice != "auto":
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if not request.parallel_tool_calls:
        body["parallel_tool_calls"] = False


def _tool_choice(choice: ToolChoice) -> str | Json:
    if isinstance(choice, ForcedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _response_format(answer: JsonAnswer) -> Json:
    if answer.schema is None:
        return {"type": "json_object"}
    schema: Json = {"name": answer.name, "schema": answer.schema, "strict": True}
    if answer.description:
        schema["description"] = answer.description
    return {"type": "json_schema", "json_schema": schema}


def with_mistral_ids(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same turns, their calls with ids that Mistral's hosts and templates take."""
    ids = mistral_call_ids(messages)
    if all(id == mapped for id, mapped in ids.items()):
        return messages
    return tuple(_with_ids(message, ids) for message in messages)


def _with_ids(message: Message, ids: Mapping[str, str]) -> Message:
    renamed: Message = {**message}
    if "tool_calls" in message:
        calls: list[ToolCall] = [{**call, "id": ids[call["id"]]} for call in message["tool_calls"]]
        renamed["tool_calls"] = calls
    if message["role"] == "tool":
        renamed["tool_call_id"] = ids[message.get("tool_call_id", "")]
    return renamed
