"""What the models endpoint says of a model: one object for the clients of three interfaces.

The hosted one's keys, OpenAI's and Mistral's stand side by side. A value that is not known is null,
never invented: there are no prices on one's own machine.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from configs.evaluation_schema import Price
from serve.engine import EngineModel
from serve.request.chat_request import DEFAULT_TEMPERATURE
from serve.request.json_schema import request_schema

ModelKind = Literal["variant", "base", "hosted"]
ENDPOINT = "/chat/completions"
OWNER = "tunery"

ModelObject = dict[str, Any]


def model_object(
    model: EngineModel,
    *,
    name: str,
    kind: ModelKind,
    created: int,
    display_name: str | None = None,
    description: str | None = None,
    summary: str | None = None,
    source_model: str | None = None,
    aliases: Sequence[str] = (),
    price: Price | None = None,
) -> ModelObject:
    """The full object of one name.

    model: who answers under it; name: as clients say it; created: Unix time; source_model: what a
    variant was tuned from; aliases: further names of the same model; price: what it costs.
    """
    schema = request_schema(model, name=name)
    inputs = ["text", "image"] if model.takes_images else ["text"]
    released = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    context = {} if model.context_length is None else {"max_context_length": model.context_length}
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "name": name,
        "display_name": display_name or name,
        "description": description,
        "summary": summary,
        "model_type": "custom" if kind == "variant" else "base",
        # Mistral's client knows "base" and "fine-tuned"; the latter names a job of its platform.
        "type": "base",
        "endpoint": ENDPOINT,
        "capabilities": {"input": inputs, "output": ["text"], **_mistral_capabilities(model)},
        **context,
        "aliases": list(aliases),
        "default_model_temperature": DEFAULT_TEMPERATURE,
        "deprecation": None,
        "pricing": None if price is None else _pricing(price),
        "fine_tuning": None,
        "deployments": [],
        "developer": None,
        "source_model": source_model,
        "image_url": None,
        "released_at": released,
        "request_schema": schema,
        "json_request_schema": schema,
    }


def _pricing(price: Price) -> dict[str, Any]:
    """The hosted interface's form, with the currency, which it leaves unsaid."""
    return {
        "method": "token",
        "input_cost_per_token": price.input_per_million / 1e6,
        "output_cost_per_token": price.output_per_million / 1e6,
        "currency": price.currency,
    }


def _mistral_capabilities(model: EngineModel) -> dict[str, bool]:
    return {
        "completion_chat": True,
        "completion_fim": False,
        "function_calling": model.takes_tools,
        "fine_tuning": False,
        "vision": model.takes_images,
        "classification": False,
    }


def models_list(models: Sequence[ModelObject]) -> dict[str, Any]:
    """The body of the list, and of what a search finds."""
    return {"object": "list", "data": list(models)}


def search(models: Sequence[ModelObject], text: str) -> list[ModelObject]:
    """Models in whose names or descriptions all words of `text` stand, whatever their case."""
    words = text.casefold().split()
    return [model for model in models if all(word in _words_of(model) for word in words)]


def _words_of(model: Mapping[str, Any]) -> str:
    texts = [model["id"], model["display_name"], model["description"], model["summary"]]
    return "\n".join(filter(None, [*texts, *model["aliases"]])).casefold()
