"""Mistral's v7-tekken form, as Mistral Small 3 and 3.1 speak it, to mistral-common's token ids.

The form is laid out here piece by piece, because what the hub's chat template gives is another
one: it writes today's date into rows without a system turn, takes no tools, and lets words of a
user that spell a control token act as one. Held against `InstructTokenizerV7` in the tests.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from data.conversation import ContentPart, Conversation, Message, Role, ToolDefinition
from data.tokens.mistral_call_ids import mistral_call_ids
from data.tokens.mistral_images import ImageForm, load_image_form, open_image
from data.tokens.rendered import Rendered, RowProblem, call_arguments, check_text, refused
from data.tokens.tekken_check import check_token_ids, encode_text, load_tekken

BOS, EOS, INST, END_INST, TOOLS, END_TOOLS, RESULTS, END_RESULTS, CALLS = range(1, 10)
SYSTEM, END_SYSTEM, RESULT_CONTENT = range(17, 20)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# What may follow what, as mistral-common's validator has it.
FOLLOWERS: dict[Role, tuple[Role, ...]] = {
    "system": ("user", "assistant", "system"),
    "user": ("assistant", "system", "user"),
    "assistant": ("assistant", "user", "tool"),
    "tool": ("assistant", "tool", "user"),
}

# A control token, a text to encode, or the tokens of an image; and whether it is supervised.
Piece = tuple[int | str | list[int], int]


class MistralV7Renderer:
    """Renders rows to the ids of mistral-common's v7, with answers, calls and ends supervised."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Errors: `UserError` where the tokenizer's ids are not those of the model's tekken."""
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        checkpoint = Path(tokenizer.name_or_path)
        check_token_ids(self._backend, load_tekken(checkpoint), checkpoint)
        self._images = load_image_form(checkpoint)

    def render(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """One result for each conversation, in order and uncut."""
        rows = [_pieces_or_problem(conversation, self._images) for conversation in conversations]
        texts = [
            piece
            for row in rows
            if not isinstance(row, RowProblem)
            for piece, _ in row
            if isinstance(piece, str)
        ]
        encoded = iter(encode_text(self._backend, texts))
        return [
            refused(row) if isinstance(row, RowProblem) else _assemble(row, encoded) for row in rows
        ]


def lay_out(conversation: Conversation, images: ImageForm | None = None) -> list[Piece]:
    """The pieces of a row in order; a `RowProblem` where mistral-common would not take it.

    images: how the model takes images, None where it takes none.
    """
    messages, tools = conversation.messages, conversation.tools
    _check_order(messages)
    ids = mistral_call_ids(messages)
    turns = [(role, list(turn)) for role, turn in groupby(messages, lambda one: one["role"])]
    last_user = max((n for n, (role, _) in enumerate(turns) if role == "user"), default=-1)
    if tools and last_user < 0:
        raise RowProblem("has tools, which are told before a user's turn, and no user's turn")
    pieces: list[Piece] = [(BOS, 0)]
    for number, (role, turn) in enumerate(turns):
        if role == "user":
            if tools and number == last_user:
                pieces += (TOOLS, 0), (_tools_text(tools), 0), (END_TOOLS, 0)
            pieces += (INST, 0), *((part, 0) for part in _user_parts(turn, images)), (END_INST, 0)
        elif role == "assistant":
            pieces += _answer(turn, ids)
        elif role == "system":
            for message in turn:
                pieces += (SYSTEM, 0), (_text([message]), 0), (END_SYSTEM, 0)
        else:
            for message in turn:
                call_id = ids[message.get("tool_call_id", "")]
                pieces += (RESULTS, 0), (call_id, 0), (RESULT_CONTENT, 0)
                pieces += (_text([message]), 0), (END_RESULTS, 0)
    return pieces


def _pieces_or_problem(
    conversation: Conversation, images: ImageForm | None
) -> list[Piece] | RowProblem:
    try:
        pieces = lay_out(conversation, images)
        for piece, _ in pieces:
            if isinstance(piece, str):
                check_text(piece)
        return pieces
    except RowProblem as problem:
        return problem


def _assemble(pieces: list[Piece], encoded: Iterator[list[int]]) -> Rendered:
    ids: list[int] = []
    mask: list[int] = []
    for piece, supervised in pieces:
        if isinstance(piece, int):
            ids.append(piece)
            mask.append(supervised)
        else:
            tokens = next(encoded) if isinstance(piece, str) else piece
            ids += tokens
            mask += [supervised] * len(tokens)
    return Rendered(ids, mask, 0)


def _check_order(messages: Sequence[Message]) -> None:
    """What mistral-common's validator asks of the order of turns, when it is to train on them."""
    num_waiting = 0
    for number, (before, message) in enumerate(zip((None, *messages), messages, strict=False), 1):
        role = message["role"]
        if role not in (FOLLOWERS[before["role"]] if before else ("system", "user", "assistant")):
            raise RowProblem(f"turn {number} is {role}, after {before['role'] if before else '-'}")
        if role == "tool":
            num_waiting -= 1
        elif role == "assistant":
            if num_waiting > 0:
                raise RowProblem(f"turn {number} (assistant) comes before a call is answered")
            num_waiting = len(message.get("tool_calls", ()))
        if num_waiting < 0:
            raise RowProblem(f"turn {number} answers no call")


def _answer(turn: Sequence[Message], ids: dict[str, str]) -> Iterator[Piece]:
    text = _text(turn).rstrip(" ")
    calls = [
        {
            "name": _checked_name(call["function"]["name"]),
            "arguments": call_arguments(call),
            "id": ids[call["id"]],
        }
        for message in turn
        for call in message.get("tool_calls", ())
    ]
    if not text.strip() and not calls:
        raise RowProblem("has an assistant's turn that is empty")
    yield text, 1
    if calls:
        yield CALLS, 1
        yield json.dumps(calls, ensure_ascii=False), 1
    yield EOS, 1


def _text(turn: Sequence[Message]) -> str:
    if any(part["type"] != "text" for message in turn for part in _contents(message)):
        raise RowProblem(f"has an image in a turn of {turn[0]['role']}")
    return "".join(part for part in _parts(turn, None) if isinstance(part, str))


def _user_parts(turn: Sequence[Message], images: ImageForm | None) -> list[str | list[int]]:
    parts = _parts(turn, images)
    if len(parts) == 2 and isinstance(parts[0], str) and not isinstance(parts[1], str):
        # A single image behind a text was put in front of it when the model was trained.
        return [parts[1], parts[0]]
    return parts


def _contents(message: Message) -> list[ContentPart]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _parts(turn: Sequence[Message], images: ImageForm | None) -> list[str | list[int]]:
    """Texts and images of consecutive turns; texts that meet are joined, empty ones left out."""
    parts: list[str | list[int]] = []
    for message in turn:
        for part in _contents(message):
            if part["type"] != "text":
                if images is None:
                    raise RowProblem("holds an image, which rows for this model cannot have")
                parts.append(images.token_ids(open_image(part["image_url"]["url"])))
            elif part["text"] and parts and isinstance(parts[-1], str):
                parts[-1] += "\n\n" + part["text"]
            elif part["text"]:
                parts.append(part["text"])
    return parts


def _tools_text(tools: Sequence[ToolDefinition]) -> str:
    """The JSON list of the definitions, with the fields that mistral-common knows."""
    definitions = []
    for tool in tools:
        function = tool["function"]
        definitions.append(
            {
                "type": "function",
                "function": {
                    "name": _checked_name(function["name"]),
                    "description": function.get("description") or "",
                    "parameters": function.get("parameters") or {},
                },
            }
        )
    return json.dumps(definitions, ensure_ascii=False)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise RowProblem(f"has a tool name that Mistral's models do not take: {name[:80]!r}")
    return name
