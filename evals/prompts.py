"""The one place where a question becomes the messages of a prompt, and where these get a name."""

import hashlib
import json
from collections.abc import Iterator, Sequence

from data.conversation import Conversation, Message, ToolDefinition, text_of
from evals.results import ZERO_SHOT
from evals.task import EvaluationTask, Question


def build_prompt(question: Question, examples: Sequence[Conversation] = ()) -> list[Message]:
    """What is sent: the system turn, the worked examples without theirs, the question."""
    system = [turn for turn in question.messages if turn["role"] == "system"]
    shown = [turn for example in examples for turn in example.messages if turn["role"] != "system"]
    return [*system, *shown, *(turn for turn in question.messages if turn["role"] != "system")]


def prompt_sha256(messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> str:
    """SHA-256, in hexadecimal, of what is sent and of nothing else.

    Of canonical JSON: sorted keys, no blanks, UTF-8; so that another program can compute it.
    """
    sent = {"messages": list(messages), "tools": list(tools)}
    text = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def name_prompt(num_examples: int) -> str:
    """How reports call a prompt with so many worked examples."""
    return f"{num_examples} examples" if num_examples else ZERO_SHOT


def name_prompt_of(task: EvaluationTask, *, with_examples: bool) -> str:
    """How reports call a task's prompt, with its worked examples or without."""
    return name_prompt(len(task.examples) if with_examples else 0)


def prompt_text(messages: Sequence[Message]) -> str:
    """A prompt for people: the role stands before each turn where there is more than one."""
    if len(messages) == 1:
        return turn_text(messages[0])
    return "\n\n".join(f"{turn['role']}: {turn_text(turn)}" for turn in messages)


def turn_text(turn: Message) -> str:
    """A turn for people: its text, with images and calls in words."""
    return "\n".join(part for part in _told(turn) if part)


def asked_text(turns: Sequence[Message]) -> str:
    """What turns ask, whatever their case and white space: equal where the same is asked."""
    texts = (text_of(turn) for turn in turns if turn["role"] != "system")
    return " ".join(" ".join(texts).split()).casefold()


def _told(turn: Message) -> Iterator[str]:
    if isinstance(turn["content"], str):
        yield text_of(turn)
    else:
        for part in turn["content"]:
            yield part["text"] if part["type"] == "text" else "[image]"
    for call in turn.get("tool_calls", ()):
        yield f"[calls {call['function']['name']}({call['function']['arguments']})]"
