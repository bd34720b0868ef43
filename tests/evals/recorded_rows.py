"""Tasks with answers to them, as the tests of recordings and costs need them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.evaluation_schema import Price
from data.conversation import Conversation, question_and_answer
from evals.prompts import build_prompt, prompt_text
from evals.recording import AskedBetween, write_recording
from evals.targets import Target
from evals.task import Answer, EvaluationTask, Question
from evals.tasks import log_name

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a term up.",
        "parameters": {
            "type": "object",
            "properties": {"term": {"type": "string", "pattern": "^[a-z]+$"}},
            "required": ["term"],
        },
    },
}
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR"
    "9awAAAABJRU5ErkJggg=="
)
EXAMPLES: tuple[Conversation, ...] = (
    question_and_answer("Term 90?", "Skin", id="x/90"),
    question_and_answer("Term 91?", "Nervous", id="x/91"),
)
HOST = Target("The big one", "https://ann:secret@host.example/v1?token=t", "big-2503", "sk-secret")


def build_task(count: int = 3, **changes: object) -> EvaluationTask:
    """Questions `q/0`…, the second with a tool, the third with an image and a system turn."""
    questions = [
        Question(
            id=f"q/{n}",
            messages=({"role": "user", "content": f"Term {n}?"},),
            reference={"role": "assistant", "content": "Skin"},
            cluster=f"q/{n}",
        )
        for n in range(count)
    ]
    if count > 1:
        questions[1] = Question(
            id="q/1",
            messages=questions[1].messages,
            reference=questions[1].reference,
            cluster="q/1",
            tools=(TOOL,),
        )
    if count > 2:
        questions[2] = Question(
            id="q/2",
            messages=(
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Term 2 – “schön”?"},
                        {"type": "image_url", "image_url": {"url": IMAGE}},
                    ],
                },
            ),
            reference=questions[2].reference,
            cluster="q/2",
        )
    settings: dict[str, Any] = {
        "name": "terms",
        "role": "primary",
        "metric": "normalized_match",
        "questions": tuple(questions),
        "examples": EXAMPLES,
        "max_tokens": 16,
        "licence": "CC0-1.0",
    }
    return EvaluationTask(**(settings | changes))


def answer(question: Question, *, epoch: int = 1, **changes: object) -> Answer:
    told: dict[str, Any] = {
        "id": question.id,
        "epoch": epoch,
        "question": prompt_text(build_prompt(question)),
        "reference": "Skin",
        "text": f"Answer {epoch} to {question.id}\n\u2028\u0000 ü \ud800",
        "tool_calls": (),
        "score": 0.0,
        "label": "",
        "stop_reason": "max_tokens",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "seconds": 1.25 + epoch,
    }
    if question.tools:
        call = {"name": "look_up", "arguments": '{"term": "skin"}'}
        told |= {"tool_calls": ({"id": "c1", "type": "function", "function": call},), "text": ""}
        told |= {"stop_reason": "tool_calls", "prompt_tokens": None, "completion_tokens": None}
        told |= {"seconds": None}
    return Answer(**(told | changes))


def answers_to(tasks: Sequence[tuple[EvaluationTask, bool]]) -> dict[str, list[Answer]]:
    return {
        log_name(task, with_examples=with_examples): [
            answer(question, epoch=epoch)
            for question in task.questions
            for epoch in range(1, task.num_epochs + 1)
        ]
        for task, with_examples in tasks
    }


def record(
    file: Path,
    task: EvaluationTask,
    price: Price | None = None,
    asked: AskedBetween | None = None,
    with_prompts: bool = False,
) -> Path:
    """A recording of both prompts."""
    tasks = [(task, False), (task, True)]
    write_recording(
        file,
        target=HOST,
        tasks=tasks,
        answers=answers_to(tasks),
        price=price,
        asked=asked,
        with_prompts=with_prompts,
    )
    return file
