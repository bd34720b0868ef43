"""What requests may hold, as a JSON Schema: made from the models that check them.

Checked beside it, because JSON Schema cannot say it: that a tool's turn answers a call which was
made before it (and carries its name), that the ids of a turn's calls and the names of tools differ,
that a forced function is among the tools, that `arguments` are JSON text of an object, that nothing
is nested more than `MAX_DEPTH` deep, and that a body's elements are no more than `MAX_ELEMENTS`.
"""

from collections.abc import Mapping
from functools import cache

from serve.engine import EngineModel
from serve.request.chat_request import ChatRequest
from serve.request.rules import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASIC = ["messages", "stream", "max_tokens", "temperature"]
"""Fields that a request builder shows first."""
IMAGE_DEFINITIONS = ("ImagePart", "ImageAddress")


@cache
def _definitions(ref_template: str) -> Schema:
    """Every model's schema by its name, `ChatRequest` among them. Not to be changed."""
    schema = ChatRequest.model_json_schema(ref_template=ref_template)
    definitions: Schema = schema.pop("$defs")
    definitions["ChatRequest"] = schema
    for definition in definitions.values():
        _say_that_null_is_absent(definition)
    for order, field in enumerate(schema["properties"].values()):
        field["x-order"] = order
    return definitions | {"ChatRequest": schema | {"basic": BASIC}}


def request_definitions(ref_template: str, models: Mapping[str, EngineModel]) -> Schema:
    """Schemas by name of the requests that these models take under these names.

    They refer to each other by `ref_template`, such as `#/$defs/{model}`. Where the models differ,
    they say what at least one of them takes.
    """
    definitions = dict(_definitions(ref_template))
    schema = definitions["ChatRequest"]
    fields: Schema = dict(schema["properties"])
    fields["model"] = fields["model"] | {"enum": list(models)}
    if len(models) == 1:
        fields["model"]["default"] = next(iter(models))
    contexts = [model.context_length for model in models.values()]
    longest = [context for context in contexts if context is not None]
    if len(longest) == len(contexts):
        for field in ("max_tokens", "max_completion_tokens"):
            fields[field] = fields[field] | {"maximum": max(longest)}
    if not any(model.takes_tools for model in models.values()):
        del fields["tools"]
    if not any(model.takes_images for model in models.values()):
        definitions["UserMessage"] = _without_images(definitions["UserMessage"])
        for definition in IMAGE_DEFINITIONS:
            del definitions[definition]
    return definitions | {"ChatRequest": schema | {"properties": fields}}


@cache
def request_schema(model: EngineModel, *, name: str) -> Schema:
    """A self-contained schema of the requests that `model` takes under `name`; do not change it."""
    definitions = request_definitions("#/$defs/{model}", {name: model})
    schema: Schema = definitions.pop("ChatRequest")
    return {"$schema": DIALECT} | schema | {"$defs": definitions}


def _without_images(message: Schema) -> Schema:
    """A user's turn of text alone."""
    text, parts = message["properties"]["content"]["anyOf"]
    [only_text] = [part for part in parts["items"]["oneOf"] if part["$ref"].endswith("/TextPart")]
    content = message["properties"]["content"] | {"anyOf": [text, parts | {"items": only_text}]}
    return message | {"properties": message["properties"] | {"content": content}}


def _say_that_null_is_absent(schema: Schema) -> None:
    """Let every field that may be left out be null, and every unknown one be nothing else."""
    if schema.get("additionalProperties") is False:
        schema["additionalProperties"] = {"type": "null"}
    properties: Schema = schema.get("properties", {})
    for name, field in properties.items():
        if name not in schema.get("required", ()):
            properties[name] = _nullable(field)


def _nullable(field: Schema) -> Schema:
    """`field`, or null; with one list of types where it has no alternatives."""
    told = {key: field[key] for key in ("title", "description", "default") if key in field}
    if told.get("default", ...) is None:
        del told["default"]
    rest = {key: value for key, value in field.items() if key not in (*told, "default")}
    options = [option for option in rest.pop("anyOf", [rest]) if option != {"type": "null"}]
    if len(options) == 1 and "type" in options[0]:
        [option] = options
        values = {}
        if "const" in option:
            values = {"enum": [option["const"], None]}
        elif "enum" in option:
            values = {"enum": [*option["enum"], None]}
        kept = {key: value for key, value in option.items() if key not in ("const", "enum")}
        return told | kept | values | {"type": [option["type"], "null"]}
    return told | {"anyOf": [*options, {"type": "null"}]}
