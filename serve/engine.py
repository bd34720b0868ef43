"""What an engine is to the completion interface, so that llama.cpp is one of several one day.

Requests arrive here validated and leave as a stream of events; the interface never sees an engine's
own wire format, and an engine never sees HTTP.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from data.conversation import Message


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One request for an answer to `messages`, all fields within their ranges.

    max_tokens: longest answer in tokens, up to the context when absent; temperature: 0 is greedy;
    seed: None draws a fresh one; json_schema: when given, the answer is JSON that fits it.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer; never empty."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of the answer: why it ended, and the engine's own token counts."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


Event = TextDelta | Finish


class EngineError(Exception):
    """The engine could not answer, through no fault of the request."""


class RequestRefused(Exception):
    """The engine will not take this request, and says why in words for its sender.

    field: the request's field at fault, where it is known.
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


class Engine(Protocol):
    """A loaded model that answers conversations, from one event loop."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, per request."""

    def complete(self, request: Completion) -> AsyncGenerator[Event, None]:
        """Yield text as it is made, then one `Finish`.

        Closing the generator, or cancelling the task that waits for it, ends the work and frees its
        slot. Raises `RequestRefused` before the first event, `EngineError` at any time.
        """

    def close(self) -> None:
        """End running requests and free the model; blocks until that is done."""
