import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.conversation import Message, ToolCall, ToolDefinition
from evals.evidence import TaskEvidence
from evals.samples_file import MAX_IMAGE_BYTES, write_samples
from tests.evals.report.factories import EVIL, build_evidence, build_task

TOOL: ToolDefinition = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
CALL: ToolCall = {
    "id": "1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"term": "x"}'},
}


def written(folder: Path, *evidence: TaskEvidence) -> list[dict[str, Any]]:
    file = folder / "samples.jsonl"
    write_samples(file, [build_task(one) for one in evidence], evidence)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def asking(evidence: TaskEvidence, *messages: Message, **more: Any) -> TaskEvidence:  # noqa: ANN401
    """The evidence, whose first question is put otherwise."""
    first, *others = evidence.task.questions
    questions = (replace(first, messages=messages, **more), *others)
    return replace(evidence, task=replace(evidence.task, questions=questions))


def with_image(num_bytes: int) -> Message:
    url = "data:image/png;base64,".ljust(num_bytes, "A")
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": url}},
        ],
    }


def test_a_line_holds_what_the_variant_was_sent_and_what_came_of_it(tmp_path: Path) -> None:
    turns: tuple[Message, ...] = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which chapter?"},
    )
    # The variant is right on the first 30 of 40 questions, the baseline on the last 10, with its
    # worked examples, which are not part of the variant's prompt.
    lines = written(tmp_path, asking(build_evidence("chapters"), *turns))
    assert lines[0] == {
        "id": "row/0",
        "task": "chapters",
        "outcome": "won",
        "messages": list(turns),
        "reference": "Diseases of the digestive system",
        "baseline": {
            "name": "mistral-small-2503",
            "text": "It is diseases of the skin, I think",
            "score": 0.0,
        },
        "variant": {
            "name": "demo-medical",
            "text": "Diseases of the digestive system",
            "score": 1.0,
        },
    }


def test_every_task_is_there_in_its_order_the_guards_included(tmp_path: Path) -> None:
    domain = build_evidence("domain", num=3, right=(1, 1))
    guard = build_evidence("languages", num=2, role="guard", right=(2, 2))
    lines = written(tmp_path, domain, guard)
    assert [(line["task"], line["id"], line["outcome"]) for line in lines] == [
        ("domain", "row/0", "won"),
        ("domain", "row/1", "both_wrong"),
        ("domain", "row/2", "lost"),
        ("languages", "row/0", "both_right"),
        ("languages", "row/1", "both_right"),
    ]
    assert lines[3]["baseline"]["name"] == "SmolLM2-135M-Instruct"


def test_of_several_epochs_stand_the_first_text_and_the_mean_score(tmp_path: Path) -> None:
    evidence = build_evidence("one", num=2, right=(0, 2), num_epochs=2, num_examples=0)
    second = replace(evidence.variant[1], text="another", score=0.5)
    variant = [evidence.variant[0], second, *evidence.variant[2:]]
    first, _ = written(tmp_path, replace(evidence, variant=variant))
    assert first["variant"] == {
        "name": "demo-medical",
        "text": "Diseases of the digestive system",
        "score": 0.75,
    }


def test_tools_stand_where_there_are_some_and_calls_are_words(tmp_path: Path) -> None:
    evidence = build_evidence("tools", num=2, right=(0, 2), num_examples=0)
    evidence = asking(evidence, *evidence.task.questions[0].messages, tools=(TOOL,))
    called = replace(evidence.variant[0], text="", tool_calls=(CALL,))
    first, second = written(tmp_path, replace(evidence, variant=[called, evidence.variant[1]]))
    assert first["tools"] == [TOOL]
    assert first["variant"]["text"] == 'calls look_up({"term": "x"})'
    assert "tools" not in second


@pytest.mark.parametrize("excess", [0, 1])
def test_images_stay_up_to_a_bound_and_leave_a_word_beyond_it(tmp_path: Path, excess: int) -> None:
    half = MAX_IMAGE_BYTES // 2
    turns = (with_image(half), with_image(half + excess))
    first, second = written(tmp_path, asking(build_evidence("images", num=2), *turns))
    if not excess:
        assert first["messages"] == list(turns)
        assert "image_left_out" not in first
        return
    told = {"type": "text", "text": "[image left out: too large]"}
    kept = {"type": "text", "text": "What is this?"}
    assert [turn["content"] for turn in first["messages"]] == [[kept, told]] * 2
    assert first["image_left_out"] is True
    assert "image_left_out" not in second
    # The question itself, which others use too, has kept its image.
    assert isinstance(turns[0]["content"], list)
    assert turns[0]["content"][1]["type"] == "image_url"


def test_any_text_is_one_line_of_utf_8(tmp_path: Path) -> None:
    hostile = f"{EVIL}\n\u2028\x85"
    evidence = asking(build_evidence("evil", num=2), {"role": "user", "content": hostile})
    first, _ = written(tmp_path, evidence)
    assert first["messages"][0]["content"] == hostile.replace("\ud800", "\ufffd")
