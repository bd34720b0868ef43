"""The object of a model, as the clients of three interfaces read it."""

import json
from typing import Any

from jsonschema import Draft202012Validator
from mistralai.client.models import BaseModelCard, ModelList
from openai.types import Model

from configs.evaluation_schema import Price
from serve.engine import EngineModel
from serve.models_list import ModelObject, model_object, models_list, search
from serve.openapi_answers import ANSWERS
from serve.request.json_schema import request_schema

VARIANT = EngineModel(name="variant", context_length=2048, takes_images=True)
HOSTED = EngineModel(name="mistral-small-latest", context_length=None)
CREATED = 1_750_000_000


def variant(**further: Any) -> ModelObject:  # noqa: ANN401 (any field)
    return model_object(
        VARIANT,
        name="lawyer",
        kind="variant",
        created=CREATED,
        aliases=["mistral-small-2503"],
        source_model="SmolLM2-135M-Instruct",
        **further,
    )


def hosted() -> ModelObject:
    return model_object(
        HOSTED, name="hosted", kind="hosted", created=CREATED, description="Far Away."
    )


def test_the_hosted_interfaces_keys() -> None:
    told = variant(display_name="The Lawyer", summary="Answers in law.")
    schema = request_schema(VARIANT, name="lawyer")
    assert told.pop("request_schema") == told.pop("json_request_schema") == schema
    capabilities = told.pop("capabilities")
    assert (capabilities["input"], capabilities["output"]) == (["text", "image"], ["text"])
    assert told == {
        "id": "lawyer",
        "object": "model",
        "created": CREATED,
        "owned_by": "tunery",
        "name": "lawyer",
        "display_name": "The Lawyer",
        "description": None,
        "summary": "Answers in law.",
        "model_type": "custom",
        "type": "base",
        "endpoint": "/chat/completions",
        "max_context_length": 2048,
        "aliases": ["mistral-small-2503"],
        "default_model_temperature": 0.7,
        "deprecation": None,
        "pricing": None,
        "fine_tuning": None,
        "deployments": [],
        "developer": None,
        "source_model": "SmolLM2-135M-Instruct",
        "image_url": None,
        "released_at": "2025-06-15T15:06:40Z",
    }


def test_what_is_not_known_is_not_told() -> None:
    told = hosted()
    assert told["model_type"] == "base"
    assert "max_context_length" not in told
    assert told["display_name"] == "hosted"
    assert told["capabilities"]["input"] == ["text"]


def test_mistrals_client_takes_the_list() -> None:
    listed = ModelList.model_validate(json.loads(json.dumps(models_list([variant(), hosted()]))))
    assert listed.data is not None
    first, second = listed.data
    assert isinstance(first, BaseModelCard)
    assert isinstance(second, BaseModelCard)
    assert (first.id, first.max_context_length) == ("lawyer", 2048)
    assert first.aliases == ["mistral-small-2503"]
    assert first.capabilities.completion_chat
    assert first.capabilities.function_calling
    assert (first.capabilities.vision, second.capabilities.vision) == (True, False)
    assert not first.capabilities.completion_fim


def test_openais_client_takes_it_strictly() -> None:
    told = Model.model_validate(hosted(), strict=True)
    assert (told.id, told.created, told.owned_by) == ("hosted", CREATED, "tunery")


def test_it_is_as_described() -> None:
    text = json.dumps(ANSWERS).replace("#/components/schemas/", "#/$defs/")
    schema = {"$ref": "#/$defs/ModelList", "$defs": json.loads(text)}
    Draft202012Validator(schema).validate(models_list([variant(), hosted()]))


def test_a_search_reads_names_and_descriptions() -> None:
    models = [variant(summary="Answers in law."), hosted()]

    def found(text: str) -> list[str]:
        return [model["id"] for model in search(models, text)]

    assert found("") == found("  ") == ["lawyer", "hosted"]
    assert found("LAW") == ["lawyer"]
    assert found("small-2503") == ["lawyer"]
    assert found("away far") == ["hosted"]
    assert found("far law") == []
    assert found("nothing like it") == []


def test_a_price_is_told_by_the_token_and_with_its_currency() -> None:
    price = Price(input_per_million=0.5, output_per_million=2, currency="EUR")
    told = model_object(HOSTED, name="h", kind="hosted", created=CREATED, price=price)
    assert told["pricing"] == {
        "method": "token",
        "input_cost_per_token": 5e-7,
        "output_cost_per_token": 2e-6,
        "currency": "EUR",
    }
    assert variant()["pricing"] is None
