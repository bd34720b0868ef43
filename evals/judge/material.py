"""How a judge is shown requests and answers: as material that cannot pass for its instructions.

Each piece stands between marks that carry a key. The key is a hash of all pieces, so that no answer
can hold it: it would have to hold its own hash. (Marking what is not trusted: Hines et al. 2024,
arXiv 2403.14720.)
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from data.conversation import ContentPart, ImagePart, Message, ToolCall, text_of
from evals.prompts import prompt_text
from evals.task import Answer, Question

NUM_KEY_CHARACTERS = 12
# Hosts may read these as control tokens also where they stand in a turn's text.
_CONTROL = re.compile(
    r"<(?=\||/?s>|(?:start|end)_of_turn>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
)


class Piece(NamedTuple):
    """title: in the marks, as `answer A`; text: as it came from a row or a model."""

    title: str
    text: str


def shown_answer(answer: Answer) -> str:
    """The answer's text and then its tool calls, each as `call NAME ARGUMENTS`."""
    return _text_and_calls(answer.text, answer.tool_calls)


def shown_reference(question: Question) -> str:
    """The expected answer in the same form; empty where the question has none."""
    reference = question.reference
    return _text_and_calls(text_of(reference).strip(), reference.get("tool_calls", []))


def request_pieces(question: Question) -> list[Piece]:
    """The turns of the question and, where there are any, the definitions of its tools."""
    pieces = [Piece("request", prompt_text(question.messages))]
    if question.tools:
        tools = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in question.tools)
        pieces.append(Piece("tools that the request offers", tools))
    return pieces


def marks(pieces: Sequence[Piece]) -> tuple[str, str]:
    """The key and the pieces between marks that carry it; the same ones for the same pieces."""
    content = json.dumps(pieces, ensure_ascii=False)
    key = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:NUM_KEY_CHARACTERS]
    blocks = (
        f"[{title} {key}]\n{_CONTROL.sub(_broken, text)}\n[end of {title} {key}]"
        for title, text in pieces
    )
    return key, "\n\n".join(blocks)


def judge_message(text: str, question: Question) -> Message:
    """One user's turn, because not every model takes a system turn; images of the question last."""
    images = [part for message in question.messages for part in _images(message)]
    if not images:
        return Message(role="user", content=text)
    parts: list[ContentPart] = [{"type": "text", "text": text}, *images]
    return Message(role="user", content=parts)


def prompt_id(question: Question, message: Message) -> str:
    """Names a judge's prompt by its content, so that equal ones are asked and paid once."""
    digest = hashlib.sha256(text_of(message).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{question.id} {digest[:NUM_KEY_CHARACTERS]}"


def _text_and_calls(text: str, calls: Sequence[ToolCall]) -> str:
    told = (f"call {call['function']['name']} {call['function']['arguments']}" for call in calls)
    return "\n".join(part for part in (text, *told) if part)


def _images(message: Message) -> list[ImagePart]:
    content = message["content"]
    if isinstance(content, str):
        return []
    return [part for part in content if part["type"] == "image_url"]


def _broken(match: re.Match[str]) -> str:
    return f"{match.group()} "
