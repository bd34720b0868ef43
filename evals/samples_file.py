"""Every question with both sides' answers, a line each, for those who go on from there: the
workbench finds samples in it to start a conversation from.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.run_directory import write_whole
from data.compared_samples import ComparedSample, SideAnswer
from data.conversation import ContentPart, Message, TextPart
from evals.evidence import TaskEvidence
from evals.prompts import build_prompt
from evals.report.samples import Pair, answer_text, pair_answers
from evals.results import TaskResult

MAX_IMAGE_BYTES = 2 * 2**20
"""Of all images of a sample together, as they stand in `data:` URLs."""
LEFT_OUT: TextPart = {"type": "text", "text": "[image left out: too large]"}
# Half of a pair, which UTF-8 cannot hold; models and rows bring some.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def write_samples(
    file: Path, results: Sequence[TaskResult], evidence: Sequence[TaskEvidence]
) -> None:
    """Write a line of JSON (`ComparedSample`) for each question of each task, in that order.

    results and evidence: of the same tasks. The file is whole at every moment; images larger than
    `MAX_IMAGE_BYTES` a sample stay out of it.
    """
    pairs = (
        (result, pair)
        for result, one in zip(results, evidence, strict=True)
        for pair in pair_answers(one, result)
    )
    write_whole(file, (_line(build_compared_sample(*of_task)) for of_task in pairs))


def build_compared_sample(result: TaskResult, pair: Pair) -> ComparedSample:
    """The sample as its line holds it."""
    question = pair.question
    messages = build_prompt(question)
    is_too_large = _num_image_bytes(messages) > MAX_IMAGE_BYTES
    sample = ComparedSample(
        id=question.id,
        task=result["name"],
        outcome=pair.outcome,
        messages=[_without_images(turn) for turn in messages] if is_too_large else messages,
        reference=pair.variant[0].reference,
        baseline=SideAnswer(
            name=result["baseline"]["name"],
            text=answer_text(pair.baseline[0]),
            score=pair.baseline_score,
        ),
        variant=SideAnswer(
            name=result["variant"]["name"],
            text=answer_text(pair.variant[0]),
            score=pair.variant_score,
        ),
    )
    if question.tools:
        sample["tools"] = list(question.tools)
    if is_too_large:
        sample["image_left_out"] = True
    return sample


def _line(sample: ComparedSample) -> str:
    text = json.dumps(sample, ensure_ascii=False, separators=(",", ":"))
    return LONE_SURROGATE.sub("\ufffd", text) + "\n"


def _num_image_bytes(messages: Sequence[Message]) -> int:
    return sum(len(url) for turn in messages for url in _image_urls(turn))


def _image_urls(turn: Message) -> Iterator[str]:
    for part in turn["content"] if isinstance(turn["content"], list) else ():
        if part["type"] == "image_url":
            yield part["image_url"]["url"]


def _without_images(turn: Message) -> Message:
    if isinstance(turn["content"], str):
        return turn
    parts: list[ContentPart] = [
        LEFT_OUT if part["type"] == "image_url" else part for part in turn["content"]
    ]
    return {**turn, "content": parts}
