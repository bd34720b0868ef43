"""Turns in the form in which llama.cpp's prompt becomes the one that training used.

llama.cpp joins the parts of a turn before its template sees them, with a line break between texts,
so a turn reaches it as a text or, where there are images, with its parts already in order.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from data.conversation import ContentPart, Message, TextPart, ToolDefinition, text_of
from data.tokens.mistral_call_ids import mistral_call_ids
from data.tokens.rendered import RowProblem, call_arguments
from serve.engine import RequestRefused

Form = Literal["mistral_v7", "other"]
Turn = dict[str, Any]
Part = dict[str, Any]
MISTRAL_TOKENS = ("[SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[TOOL_CONTENT]", "[TOOL_CALLS]")


class Turns(NamedTuple):
    """A conversation as llama.cpp is given it.

    prefix: the turns before the last one, which are kept evaluated between requests; prefix_tools:
    the tools that stand within them, so that the whole prompt begins with them.
    """

    all: list[Turn]
    tools: list[ToolDefinition]
    prefix: list[Turn]
    prefix_tools: list[ToolDefinition]


def find_form(chat_template: str) -> Form:
    """How a template wants its turns: Mistral's v7 is known by the tokens that it writes."""
    known = all(token in chat_template for token in MISTRAL_TOKENS)
    return "mistral_v7" if known else "other"


def lay_out_turns(
    messages: Sequence[Message],
    tools: Sequence[ToolDefinition],
    *,
    form: Form,
    images: Mapping[str, str],
) -> Turns:
    """The turns of a request. images: for each `data:` URL in them, the one that is sent.

    Raises `RequestRefused` for an image outside a user's turn, and for calls whose arguments are
    no JSON object.
    """
    for number, message in enumerate(messages):
        _check(message, f"messages[{number}]")
    lay_out = _lay_out_mistral if form == "mistral_v7" else _lay_out_other
    turns = lay_out(messages, images)
    prefix = turns[:-1]
    # Mistral's template tells the tools before the last user's turn, whichever that is.
    last_is_user = form == "mistral_v7" and turns[-1]["role"] == "user"
    return Turns(turns, list(tools), prefix, [] if last_is_user else list(tools))


def image_urls(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """The request field and the `data:` URL of every image."""
    return [
        (f"messages[{number}].content[{index}].image_url", part["image_url"]["url"])
        for number, message in enumerate(messages)
        if not isinstance(message["content"], str)
        for index, part in enumerate(message["content"])
        if part["type"] == "image_url"
    ]


def _check(message: Message, field: str) -> None:
    if message["role"] != "user" and _has_images(message):
        raise RequestRefused("only a user's turn may hold images", field=f"{field}.content")
    for index, call in enumerate(message.get("tool_calls", ())):
        try:
            call_arguments(call)
        except RowProblem as problem:
            place = f"{field}.tool_calls[{index}].function.arguments"
            raise RequestRefused(str(problem), field=place) from problem


def _lay_out_other(messages: Sequence[Message], images: Mapping[str, str]) -> list[Turn]:
    turns = []
    for message in messages:
        turn: Turn = {"role": message["role"], "content": text_of(message)}
        if _has_images(message):
            turn["content"] = _join_parts([message], images, between="")
        turns.append(turn | _calls(message, lambda id: id))
    return turns


def _lay_out_mistral(messages: Sequence[Message], images: Mapping[str, str]) -> list[Turn]:
    """As `data.tokens.mistral_v7` lays rows out: consecutive user turns are one."""
    ids = mistral_call_ids(messages)
    turns: list[Turn] = []
    for role, group in groupby(messages, lambda message: message["role"]):
        run = list(group)
        if role == "user":
            turns.append({"role": role, "content": _mistral_content(run, images)})
            continue
        for message in run:
            turn: Turn = {"role": role, "content": _mistral_content([message], images)}
            turns.append(turn | _calls(message, ids.__getitem__))
    return turns


def _mistral_content(messages: Sequence[Message], images: Mapping[str, str]) -> str | list[Part]:
    parts = _join_parts(messages, images, between="\n\n")
    if all(part["type"] == "text" for part in parts):
        return parts[0]["text"] if parts else ""
    if [part["type"] for part in parts] == ["text", "image_url"]:
        # A single image behind a text was put in front of it when the model was trained.
        parts.reverse()
    return parts


def _join_parts(
    messages: Sequence[Message], images: Mapping[str, str], *, between: str
) -> list[Part]:
    """The parts of turns, with texts that meet joined and empty ones left out."""
    parts: list[Part] = []
    for message in messages:
        content = message["content"]
        own: Sequence[ContentPart] = (
            [TextPart(type="text", text=content)] if isinstance(content, str) else content
        )
        for part in own:
            if part["type"] == "image_url":
                url = images[part["image_url"]["url"]]
                parts.append({"type": "image_url", "image_url": {"url": url}})
            elif part["text"] and parts and parts[-1]["type"] == "text":
                parts[-1]["text"] += between + part["text"]
            elif part["text"]:
                parts.append({"type": "text", "text": part["text"]})
    return parts


def _calls(message: Message, rename: Callable[[str], str]) -> Turn:
    """What a turn says of calls, beside its content."""
    turn: Turn = {}
    if message.get("tool_calls"):
        turn["tool_calls"] = [
            {
                "id": rename(call["id"]),
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    # llama.cpp parses it, and takes no empty text.
                    "arguments": call["function"]["arguments"] or "{}",
                },
            }
            for call in message["tool_calls"]
        ]
    if message["role"] == "tool":
        turn["tool_call_id"] = rename(message.get("tool_call_id", ""))
    return turn


def _has_images(message: Message) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(part["type"] == "image_url" for part in content)
