"""What an engine is to the completion interface: llama.cpp, vLLM and other hosts look alike here.

Requests arrive validated and leave as a stream of events; the interface never sees an engine's own
wire format, and an engine never sees an HTTP request of a client.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from data.conversation import Message, ToolDefinition

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class ForcedFunction:
    """The answer is to call this one of the tools."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | ForcedFunction


@dataclass(frozen=True, kw_only=True)
class JsonAnswer:
    """The answer is JSON. schema: what it fits; None for any object."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One request for answers to `messages`, all fields within their ranges.

    model: the name by which the engine knows it; messages: images are `data:` URLs; tool_choice:
    without meaning where there are no tools; max_tokens: longest answer in tokens, up to the
    context when absent; temperature: 0 is greedy; seed: None draws a fresh one; num_choices:
    answers drawn apart from each other; top_logprobs: None for no log-probabilities, else the
    number of alternatives at each token.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    num_choices: int = 1
    top_logprobs: int | None = None
    json_answer: JsonAnswer | None = None


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A token that could have stood there. logprob: natural logarithm of its probability."""

    token: str
    utf8: bytes
    logprob: float


@dataclass(frozen=True, kw_only=True)
class TokenLogprob(Alternative):
    """A token of the answer. top: the likeliest tokens at its place, the likeliest first."""

    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """The next piece of an answer's text; never empty."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ToolCallDelta:
    """The next piece of an answer's call of a tool.

    call: which of the answer's calls, from 0; id and name: told once, with the call's first piece;
    arguments: the next piece of the JSON text of an object.
    """

    call: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    choice: int = 0


@dataclass(frozen=True, kw_only=True)
class ChoiceEnd:
    """The end of one answer, and why it ended."""

    reason: FinishReason
    choice: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The engine's own counts: of the prompt, and of all answers together."""

    prompt_tokens: int
    completion_tokens: int


Event = TextDelta | ToolCallDelta | ChoiceEnd | Usage
Events = AsyncGenerator[Event, None]


class EngineError(Exception):
    """The engine could not answer, through no fault of the request."""


class EngineUnavailable(EngineError):
    """The engine is loading, has ended, or says nothing any more: the same request may work later.

    retry_after_s: seconds after which to try again.
    """

    def __init__(self, message: str, *, retry_after_s: float = 5.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Overloaded(EngineUnavailable):
    """As many requests as may wait are waiting already."""


class RequestRefused(Exception):
    """The engine will not take this request, and says why in words for its sender.

    field: the request's field at fault, such as `messages[0].content`, where it is known.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class ContextExceeded(RequestRefused):
    """The prompt leaves no room for an answer; both counts are in tokens."""

    def __init__(self, *, prompt_tokens: int, context_length: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, but the model's context holds "
            f"{context_length} tokens, prompt and answer together",
            field="messages",
        )


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """A model that an engine answers with.

    context_length: tokens of prompt and answer together, None where the host does not say.
    """

    name: str
    context_length: int | None
    takes_images: bool = False
    takes_tools: bool = True


class Engine(Protocol):
    """Answers conversations from one event loop, with one model or with several on one base."""

    @property
    def models(self) -> tuple[EngineModel, ...]:
        """What it answers with; the lengths are known once it is ready."""
        ...

    @property
    def capacity(self) -> int:
        """Requests that it works on at the same time; more would wait inside it."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it would answer now. False while it loads, and between an end and a restart."""
        ...

    async def start(self) -> None:
        """Load; returns once `ready`. Errors: `UserError` for what its user can mend."""
        ...

    def complete(self, request: Completion) -> Events:
        """Yield each answer as it is made, each ended by a `ChoiceEnd`; the last event is `Usage`.

        Pieces of several answers may come in turns; hosts that do not count leave `Usage` out.
        Closing the generator, or cancelling the task that waits for it, ends the work within half a
        second. Raises `RequestRefused` and `EngineUnavailable` before the first event (a schema
        that nothing satisfies may show only at the end), `EngineError` at any time.
        """
        ...

    async def close(self) -> None:
        """End running requests and whatever was started; may be called at any time, and twice."""
        ...
