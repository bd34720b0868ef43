"""The request body of the chat interface: what is accepted, within which ranges.

Whatever the engine cannot honour is refused by name rather than ignored, since an ignored field is
an answer to another question. A field that is null counts as absent, as it does for OpenAI.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serve.answer_schema import check_schema
from serve.engine import Completion

DEFAULT_TEMPERATURE = 0.7
"""What the hosted interface's own examples send."""


class Body(BaseModel):
    """Base of all parts of a request: unknown fields are errors, types are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if field is not None}


def _conflict(field: str, message: str) -> PydanticCustomError:
    """An error about one field that only shows beside another one."""
    return PydanticCustomError("conflict", message, {"field": field})


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]


class TextPart(Body):
    """One part of a message's content."""

    type: Literal["text"]
    text: Text


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError("must be a string or an array of text parts")
    return content


class ChatMessage(Body):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[list[TextPart], Field(min_length=1), BeforeValidator(_as_parts)]

    @property
    def text(self) -> str:
        """The content as one string; parts stand on lines of their own, as engines join them."""
        return "\n".join(part.text for part in self.content)


class StreamOptions(Body):
    """What a stream says besides the answer."""

    include_usage: bool = False


def _checked_schema(schema: dict[str, Any]) -> dict[str, Any]:
    check_schema(schema)
    return schema


class JsonSchema(Body):
    """A named schema; it is followed strictly whatever `strict` says."""

    name: str
    description: str = ""
    strict: bool = True
    schema_: Annotated[dict[str, Any], Field(alias="schema"), AfterValidator(_checked_schema)]


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema_given(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise _conflict("json_schema", "goes with the type json_schema, and only with it")
        return self

    @property
    def schema_to_follow(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None for plain text."""
        if self.type == "text":
            return None
        return self.json_schema.schema_ if self.json_schema else {"type": "object"}


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


Penalty = Annotated[float, Field(ge=-2, le=2)]
StopString = Annotated[Text, Field(min_length=1)]


class ChatRequest(Body):
    """`POST …/chat/completions`."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = DEFAULT_TEMPERATURE
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    stop: Annotated[list[StopString], Field(max_length=16), BeforeValidator(_as_list)] = []
    seed: int | None = None
    random_seed: int | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] = 1
    logprobs: Literal[False] = False
    user: str | None = None

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise _conflict("max_completion_tokens", "give this or max_tokens, not both")
        if self.seed is not None and self.random_seed is not None:
            raise _conflict("random_seed", "give this or seed, not both")
        if self.stream_options is not None and not self.stream:
            raise _conflict("stream_options", "needs stream: true")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def to_completion(self) -> Completion:
        """What the engine is asked for."""
        schema = self.response_format.schema_to_follow if self.response_format else None
        return Completion(
            messages=tuple({"role": turn.role, "content": turn.text} for turn in self.messages),
            max_tokens=self.max_tokens or self.max_completion_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            stop=tuple(self.stop),
            seed=self.random_seed if self.seed is None else self.seed,
            json_schema=schema,
        )
