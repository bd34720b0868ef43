"""From inspect's log of a task to the answers that everything else works with."""

from collections.abc import Sequence

from inspect_ai import Task
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage, ContentImage, ContentText, ModelUsage

from data.conversation import ContentPart, Message
from evals.chat_api import ASKED_AT
from evals.prompts import prompt_text
from evals.task import Answer
from evals.tasks import read_tool_call

CONTENT_FILTER = "content_filter"


def read_answers(task: Task, samples: Sequence[EvalSample]) -> list[Answer]:
    """The answers in the order of the task's questions, then epochs."""
    by_name = {(str(sample.id), sample.epoch): sample for sample in samples}
    names = [
        (str(question.id), epoch)
        for question in task.dataset
        for epoch in range(1, (task.epochs or 1) + 1)
    ]
    missing = [name for name in names if name not in by_name]
    assert not missing, f"inspect calls it a success, but there is no answer to {missing[:3]}"
    return [_read_answer(by_name[name]) for name in names]


def _read_answer(sample: EvalSample) -> Answer:
    output = sample.output
    usage = output.usage
    (score,) = (sample.scores or {}).values()
    # What stands there in the place of an answer is a notice of the host's; it is worth nothing.
    was_withheld = output.stop_reason == CONTENT_FILTER
    calls = output.message.tool_calls if output.choices else None
    return Answer(
        id=str(sample.id),
        epoch=sample.epoch,
        question=_question_text(sample),
        reference=sample.target if isinstance(sample.target, str) else sample.target[0],
        text=output.completion,
        tool_calls=tuple(read_tool_call(call) for call in calls or ()),
        score=0.0 if was_withheld else score.as_float(),
        label="" if was_withheld else score.answer or "",
        stop_reason=output.stop_reason,
        prompt_tokens=_prompt_tokens(usage) if usage else None,
        completion_tokens=usage.output_tokens if usage else None,
        # 0 is inspect's word for what was not measured.
        seconds=output.time or None,
        asked_at=(output.metadata or {}).get(ASKED_AT),
    )


def _prompt_tokens(usage: ModelUsage) -> int:
    """All tokens of the prompt; inspect keeps those that came from the host's cache apart."""
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return usage.input_tokens + cached


def _question_text(sample: EvalSample) -> str:
    if isinstance(sample.input, str):
        return sample.input
    return prompt_text([_turn(message) for message in sample.input])


def _turn(message: ChatMessage) -> Message:
    content: str | list[ContentPart] = message.text
    if not isinstance(message.content, str):
        parts: list[ContentPart] = []
        for part in message.content:
            if isinstance(part, ContentText):
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, ContentImage):
                parts.append({"type": "image_url", "image_url": {"url": part.image}})
        content = parts
    turn = Message(role=message.role, content=content)
    if message.role == "assistant" and message.tool_calls:
        turn["tool_calls"] = [read_tool_call(call) for call in message.tool_calls]
    return turn
