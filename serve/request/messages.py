"""The turns of a request, in OpenAI's and in Mistral's spellings.

`name` of a participant is refused: no chat template shows it to the model. A tool's is taken, as
Mistral sends it, and must be that of the function which was called.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from data.conversation import ContentPart, Message, ToolCall
from serve.request.body import Arguments, Body, Name, OnlyFalse, Whole, refuse
from serve.request.rules import given

MAX_MESSAGES = 2_000
MAX_ELEMENTS = 20_000
"""Turns, parts and calls together: checking them takes long enough to keep others waiting."""
MAX_PARTS = 200
MAX_CALLS = 128


class TextPart(Body):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageAddress(Body):
    """Where an image is."""

    url: Annotated[str, Field(min_length=1)]
    """A `data:` URL, or a public https address."""
    detail: Literal["auto", "high"] = "auto"
    """Images are always shown whole, at up to the model's resolution."""


def _as_address(url: object) -> object:
    return {"url": url} if isinstance(url, str) else url


class ImagePart(Body):
    """An image; its address may stand by itself, as Mistral's clients send it."""

    type: Literal["image_url"]
    image_url: Annotated[
        ImageAddress,
        BeforeValidator(
            _as_address,
            json_schema_input_type=Annotated[str, Field(min_length=1)] | ImageAddress,
        ),
    ]


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [TextPart.model_construct(type="text", text=content)]
    if not isinstance(content, list):
        refuse("must be a string or an array of parts")
    return content


SomeParts = Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)
TextParts = Annotated[list[TextPart], SomeParts]
AnyPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
AnyParts = Annotated[list[AnyPart], SomeParts]
TextContent = Annotated[
    TextParts, BeforeValidator(_as_parts, json_schema_input_type=str | TextParts)
]
AnyContent = Annotated[AnyParts, BeforeValidator(_as_parts, json_schema_input_type=str | AnyParts)]


def _joined(content: Sequence[TextPart | ImagePart] | None) -> str:
    """The text of parts, on lines of their own, as engines join them."""
    return "\n".join(part.text for part in content or () if isinstance(part, TextPart))


class Turn(Body):
    """What the turns of all roles share."""

    @classmethod
    def _remedy(cls, name: str) -> str:
        if name == "name":
            return ": no chat template shows it to the model; say it in the content"
        return super()._remedy(name)


class SystemMessage(Turn):
    """Instructions; a developer's count as the system's."""

    role: Literal["system", "developer"]
    content: TextContent

    def to_message(self, images: Mapping[str, str]) -> Message:
        """The turn for the engine; images: the `data:` URL that stands for each address."""
        return {"role": "system", "content": _joined(self.content)}


class UserMessage(Turn):
    """What is asked, in words and images."""

    role: Literal["user"]
    content: AnyContent

    def to_message(self, images: Mapping[str, str]) -> Message:
        """The turn for the engine; images: the `data:` URL that stands for each address."""
        if all(isinstance(part, TextPart) for part in self.content):
            return {"role": "user", "content": _joined(self.content)}
        parts: list[ContentPart] = []
        for part in self.content:
            if isinstance(part, ImagePart):
                url = images[part.image_url.url]
                parts.append({"type": "image_url", "image_url": {"url": url}})
            elif part.text:
                parts.append({"type": "text", "text": part.text})
        return {"role": "user", "content": parts}


class CalledFunction(Body):
    """A function that was called, and with what."""

    name: Name
    arguments: Arguments
    """JSON text of an object, or the object itself."""


class PastCall(Body):
    """A call of a tool in an earlier answer."""

    id: Name
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[int, Field(ge=0, le=MAX_CALLS), Whole] = 0
    """As answers have it; calls stand in the order in which they are given."""

    def to_call(self) -> ToolCall:
        """The call in OpenAI's form."""
        function = self.function
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": function.name, "arguments": function.arguments},
        }


class AssistantMessage(Turn):
    """An earlier answer: text, calls of tools, or both."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [given("content"), given("tool_calls", {"minItems": 1})]}
    )

    role: Literal["assistant"]
    content: TextContent | None = None
    tool_calls: list[PastCall] = Field(default=[], max_length=MAX_CALLS, fail_fast=True)
    prefix: OnlyFalse = False
    """Answers are not begun with a given text."""

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if self.content is None and not self.tool_calls:
            refuse("needed, as there are no tool_calls", "content")
        ids = [call.id for call in self.tool_calls]
        for index, id in enumerate(ids):
            if id in ids[:index]:
                refuse(f"two calls have the id {id}", "tool_calls", index, "id")
        return self

    def to_message(self, images: Mapping[str, str]) -> Message:
        """The turn for the engine; images: the `data:` URL that stands for each address."""
        message: Message = {"role": "assistant", "content": _joined(self.content)}
        if self.tool_calls:
            message["tool_calls"] = [call.to_call() for call in self.tool_calls]
        return message


class ToolMessage(Turn):
    """What a called function gave back."""

    role: Literal["tool"]
    content: TextContent
    tool_call_id: Name
    name: Name | None = None
    """That of the function which was called."""

    def to_message(self, images: Mapping[str, str]) -> Message:
        """The turn for the engine; images: the `data:` URL that stands for each address."""
        content = _joined(self.content)
        return {"role": "tool", "content": content, "tool_call_id": self.tool_call_id}


def _check_number(messages: object) -> object:
    """Before any of them is looked at: pydantic takes seconds for a million."""
    if isinstance(messages, list):
        turns = [turn for turn in messages if isinstance(turn, dict)]
        inside = [turn.get(name) for turn in turns for name in ("content", "tool_calls")]
        num_elements = len(turns) + sum(len(one) for one in inside if isinstance(one, list))
        if num_elements > MAX_ELEMENTS:
            refuse(f"at most {MAX_ELEMENTS} turns, parts and calls of tools together")
    return messages


AnyMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
Messages = Annotated[
    list[AnyMessage],
    Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True),
    BeforeValidator(_check_number),
]


def check_replies(messages: Sequence[Any]) -> None:
    """Raise unless each tool's turn answers a call that was made before it and not yet answered."""
    waiting: dict[str, str] = {}
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            waiting |= {call.id: call.function.name for call in message.tool_calls}
        elif isinstance(message, ToolMessage):
            name = waiting.pop(message.tool_call_id, None)
            if name is None:
                answered = "answers no call of a turn before it that still waits for one"
                refuse(answered, "messages", index, "tool_call_id")
            if message.name not in (None, name):
                refuse(f"the call was one of {name}", "messages", index, "name")


def find_images(messages: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """The path of each image's field, and the address that was sent there."""
    for number, message in enumerate(messages):
        if isinstance(message, UserMessage):
            for place, part in enumerate(message.content):
                if isinstance(part, ImagePart):
                    yield f"messages[{number}].content[{place}].image_url", part.image_url.url
