"""The body of a chat completion: what is accepted, within which ranges, and what is asked with it.

OpenAI's and Mistral's spellings are taken. Whatever cannot be honoured is refused by name.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from data.conversation import Message
from serve.engine import Completion, EngineModel
from serve.errors import ApiError
from serve.request.answer_format import ResponseFormat
from serve.request.body import Body, OnlyFalse, Whole, refuse
from serve.request.messages import Messages, check_replies, find_images
from serve.request.read_body import parse_body
from serve.request.refused import remedy_for
from serve.request.rules import given, needs, not_both
from serve.request.tools import ToolChoice, Tools, check_tools, to_engine_choice

DEFAULT_TEMPERATURE = 0.7
"""What the hosted interface's own examples send."""
MAX_CHOICES = 16
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

SAFE_PROMPT = (
    "Always assist with care, respect, and truth. Respond with utmost utility yet securely. "
    "Avoid harmful, unethical, prejudiced, or negative content. "
    "Ensure replies promote fairness and positivity."
)
"""What Mistral's own service puts first where `safe_prompt` is true, as it has published it."""


class StreamOptions(Body):
    """What a stream says besides the answer."""

    include_usage: bool = False
    """End with a chunk of token counts."""
    include_obfuscation: OnlyFalse = False
    """Chunks are not padded."""


class Prediction(Body):
    """An expected answer; only the empty one, which Mistral's client sends, is taken."""

    type: Literal["content"] = "content"
    content: Literal[""] = ""


class Empty(Body):
    """An object without fields."""


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


MaxTokens = Annotated[int, Field(ge=1, le=MAX_INT32), Whole]
Seed = Annotated[int, Field(ge=-MAX_INT64, le=MAX_INT64), Whole]
Penalty = Annotated[float, Field(ge=-2, le=2)]
StopString = Annotated[str, Field(min_length=1)]
StopList = Annotated[list[StopString], Field(max_length=MAX_STOPS, fail_fast=True)]
Stop = Annotated[StopList, BeforeValidator(_as_list, json_schema_input_type=StopString | StopList)]
Modalities = Annotated[list[Literal["text"]], Field(min_length=1, max_length=1, fail_fast=True)]

RULES = [
    not_both("max_tokens", "max_completion_tokens"),
    not_both("seed", "random_seed"),
    needs("stream_options", given("stream", {"const": True})),
    needs("top_logprobs", given("logprobs", {"const": True})),
    {
        "if": given("tool_choice", {"not": {"enum": [None, "auto", "none"]}}),
        "then": given("tools", {"minItems": 1}),
    },
]


class ChatRequest(Body):
    """A request for the next turn of a conversation."""

    model_config = ConfigDict(json_schema_extra={"allOf": RULES})  # type: ignore[dict-item]

    model: Annotated[str, Field(min_length=1, max_length=512)]
    """Name of the model that answers."""
    messages: Messages
    """The conversation so far."""
    stream: bool = False
    """Send the answer in pieces, as server-sent events, while it is made."""
    max_tokens: MaxTokens | None = None
    """Longest answer in tokens; up to the context's end when absent."""
    temperature: Annotated[float, Field(ge=0, le=2)] = DEFAULT_TEMPERATURE
    """How freely tokens are drawn; 0 always takes the likeliest."""
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Draw among the likeliest tokens that make up this share of the probability."""
    stop: Stop = Field(default=[])
    """Texts that end the answer, and are not part of it."""
    seed: Seed | None = None
    """Draws the same answer again, where everything else is the same too."""
    response_format: ResponseFormat | None = None
    """Form of the answer: text, any JSON object, or JSON that fits a schema."""
    tools: Tools = Field(default=[])
    """Functions that the answer may call."""
    tool_choice: ToolChoice = "auto"
    """Whether the answer may (auto), must (any, required) or must not (none) call a tool."""
    parallel_tool_calls: bool = True
    """Let one answer make several calls."""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), Whole] = 1
    """Number of answers, drawn apart from each other."""
    frequency_penalty: Penalty = 0.0
    """Disfavours tokens by how often they have come."""
    presence_penalty: Penalty = 0.0
    """Disfavours tokens that have come at all."""
    logprobs: bool = False
    """Give the log-probability of each token."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), Whole] | None = None
    """Give as many alternatives at each token."""
    stream_options: StreamOptions | None = None
    """What a stream says besides the answer."""
    safe_prompt: bool = False
    """Put Mistral's published guardrail first, as the system's instructions."""
    user: Annotated[str, Field(max_length=512)] | None = None
    """Whom the request is for: the same user keeps the same model where requests are split."""
    max_completion_tokens: MaxTokens | None = None
    """OpenAI's newer name of `max_tokens`."""
    random_seed: Seed | None = None
    """Mistral's name of `seed`."""
    prediction: Prediction | None = None
    """An expected answer; only an empty one."""
    store: OnlyFalse = False
    """Answers are not kept for later retrieval."""
    metadata: Empty | None = None
    """Tags of kept answers; only none."""
    logit_bias: Empty | None = None
    """Changed likelihoods of tokens; only none."""
    modalities: Modalities | None = None
    """Kinds of output; only text."""
    service_tier: Literal["auto", "default", "standard_only"] = "auto"
    """There is one tier."""
    reasoning_effort: Literal["none"] = "none"
    """Answers come without reasoning."""

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            refuse("give this or max_tokens, not both", "max_completion_tokens")
        if self.seed is not None and self.random_seed is not None:
            refuse("give this or seed, not both", "random_seed")
        if self.stream_options is not None and not self.stream:
            refuse("needs stream: true", "stream_options")
        if self.top_logprobs is not None and not self.logprobs:
            refuse("needs logprobs: true", "top_logprobs")
        check_tools(self.tools, self.tool_choice)
        check_replies(self.messages)
        return self

    @classmethod
    def _remedy(cls, name: str) -> str:
        return remedy_for(name) or super()._remedy(name)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def images(self) -> Iterator[tuple[str, str]]:
        """The path of each image's field, and the address that was sent there."""
        return find_images(self.messages)

    def check_model(self, model: EngineModel) -> None:
        """Raise a 400 where `model` cannot give what is asked, whatever the conversation."""
        longest = self.max_tokens or self.max_completion_tokens or 0
        if model.context_length is not None and longest > model.context_length:
            field = "max_tokens" if self.max_tokens else "max_completion_tokens"
            told = f"{field}: at most {model.context_length}, the model's context in tokens"
            raise ApiError(400, "invalid_params", told, param=field)
        if self.tools and not model.takes_tools:
            told = "tools: the model's chat template takes no tools"
            raise ApiError(400, "invalid_params", told, param="tools")
        if not model.takes_images:
            for field, _ in self.images():
                told = f"{field}: the model takes no images"
                raise ApiError(400, "invalid_params", told, param=field)

    def to_completion(self, *, images: Mapping[str, str]) -> Completion:
        """What the engine is asked for, under the model's name as it was sent.

        images: the `data:` URL that stands for each address which `images()` gives.
        """
        answer = self.response_format
        return Completion(
            model=self.model,
            messages=self._turns(images),
            tools=tuple(tool.definition() for tool in self.tools),
            tool_choice=to_engine_choice(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
            max_tokens=self.max_tokens or self.max_completion_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            stop=tuple(self.stop),
            seed=self.random_seed if self.seed is None else self.seed,
            num_choices=self.n,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            json_answer=answer.to_json_answer() if answer else None,
        )

    def _turns(self, images: Mapping[str, str]) -> tuple[Message, ...]:
        turns = [message.to_message(images) for message in self.messages]
        if not self.safe_prompt:
            return tuple(turns)
        # One turn of the system: many templates take no second one.
        rest = f"\n\n{turns.pop(0)['content']}" if turns[0]["role"] == "system" else ""
        return ({"role": "system", "content": SAFE_PROMPT + rest}, *turns)


def parse_chat_request(body: bytes) -> ChatRequest:
    """The request that `body` holds; anything that is wrong with it is a 400 `ApiError`."""
    return parse_body(ChatRequest, body)
