"""Whether an answer is JSON that follows a schema."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from configs.errors import UserError
from evals.metrics.fences import unfenced
from evals.metrics.score import Reply, Score
from evals.metrics.strict_json import parse_json
from evals.task import Question

# One of each kind that JSON knows, to find schemas that send the validator round in circles.
TRIALS: tuple[object, ...] = (None, True, 0, "", [], {}, [0], {"a": 0})
MAX_WHY = 300


class _Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterator[ValidationError]: ...


def check_schema(schema: Mapping[str, Any], *, where: str | None = None) -> None:
    """Refuse a schema that cannot judge answers, before anything is asked.

    Draft 2020-12, unless `$schema` names another draft. Errors: `UserError` where the schema breaks
    its own draft's rules, refers to what it does not hold (nothing is fetched), or to itself
    without end. where: the configuration's key, for the message.
    """
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        _resolve_references(schema)
        for trial in TRIALS:
            next(_validator(schema).iter_errors(trial), None)
    except SchemaError as error:
        raise _refused(f"{error.json_path}: {error.message}"[:MAX_WHY], where) from error
    except Unresolvable as error:
        raise _refused(f"nothing stands at the reference {error.ref}", where) from error
    except RecursionError as error:
        raise _refused("it refers to itself without end", where) from error


def score_json_schema(reply: Reply, question: Question) -> Score:
    """1 where the answer is JSON that follows `question.check["json_schema"]`, 0 otherwise.

    The whole answer has to be the JSON text, or one fenced block that holds it: a program that
    reads answers finds no JSON in prose. `format` annotates and is not checked, as the draft has
    it. why: the first violation and its path. label: "valid", "invalid" or, without JSON, "".
    Errors: `KeyError` where the question holds no schema; schemas that `check_schema` refuses.
    """
    schema = question.check["json_schema"]
    try:
        value = parse_json(unfenced(reply.text))
    except (ValueError, RecursionError) as error:
        return Score(0.0, why=f"not JSON: {error}"[:MAX_WHY])
    try:
        violation = next(_validator(schema).iter_errors(value), None)
    except RecursionError:
        return Score(0.0, "invalid", "nested too deeply to be checked")
    if violation is None:
        return Score(1.0, "valid")
    return Score(0.0, "invalid", f"{violation.json_path}: {violation.message}"[:MAX_WHY])


def _validator(schema: Mapping[str, Any]) -> _Validator:
    # With a registry of its own the validator fetches nothing from the network.
    validator: _Validator = validator_for(schema, default=Draft202012Validator)(
        schema, registry=EMPTY_REGISTRY
    )
    return validator


def _resolve_references(schema: Mapping[str, Any]) -> None:
    """Errors: `Unresolvable` for the first reference that leads nowhere."""
    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    pending = [(root, EMPTY_REGISTRY.resolver_with_root(root))]
    while pending:
        resource, resolver = pending.pop()
        if isinstance(resource.contents, Mapping):
            reference = resource.contents.get("$ref")
            if isinstance(reference, str):
                resolver.lookup(reference)
        pending += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _refused(what: str, where: str | None) -> UserError:
    return UserError(
        f"this JSON schema cannot judge answers: {what}", where=where, remedy="mend json_schema"
    )
