import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from inspect_ai import Task
from inspect_ai import eval as run_inspect
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model

from configs.errors import UserError
from data.conversation import (
    Conversation,
    Message,
    ToolCall,
    ToolDefinition,
    question_and_answer,
)
from evals.asked import ASKED, Asked
from evals.containment import contained
from evals.prompts import prompt_sha256
from evals.task import EvaluationTask, Question
from evals.tasks import build_inspect_task, log_name
from tests.evals.conftest import chapter_rows
from tests.evals.loopback_host import LoopbackHost, run_host

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
TOOL: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a number up.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "number": {"type": "string", "pattern": "^[0-9]+$", "minLength": 2},
                "in": {"oneOf": [{"const": "table"}, {"$ref": "#/$defs/place"}]},
            },
            "$defs": {"place": {"type": "string"}},
            "required": ["number"],
        },
    },
}
ASKED_TURNS: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Who is this?"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ],
    },
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "look_up", "arguments": '{"number":"17",  "in":"größe"}'},
            }
        ],
    },
    {"role": "tool", "content": "no such number", "tool_call_id": "c1"},
)
REFERENCE: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "c2",
            "type": "function",
            "function": {"name": "look_up", "arguments": '{"number": "18"}'},
        }
    ],
}


def question_of(row: Conversation) -> Question:
    return Question(
        id=row.id,
        messages=row.messages[:-1],
        reference=row.messages[-1],
        cluster=row.id,
        tools=row.tools,
    )


def task_of(rows: Sequence[Conversation], **fields: Any) -> EvaluationTask:  # noqa: ANN401
    questions = tuple(question_of(row) for row in rows)
    given: dict[str, Any] = {
        "name": "t",
        "role": "primary",
        "metric": "normalized_match",
        "max_tokens": 8,
    }
    return EvaluationTask(**(given | {"questions": questions} | fields))


def with_system(row: Conversation, text: str) -> Conversation:
    return Conversation(id=row.id, messages=(Message(role="system", content=text), *row.messages))


class ToolHost(LoopbackHost):
    """Answers every request with the given message, and keeps what was sent."""

    def __init__(self, message: dict[str, Any], *, stop: str = "stop") -> None:
        super().__init__(reply=lambda *_: "")
        self.message, self.stop = message, stop

    def build_app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> dict[str, Any]:
            self.requests.append(await request.json())
            choice = {"index": 0, "message": self.message, "finish_reason": self.stop}
            head = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
            return {**head, "choices": [choice]}

        return app


def run(task: Task, host: LoopbackHost, folder: Path) -> EvalLog:
    model = get_model(
        "openai-api/own/m", base_url=host.base_url, api_key="k", memoize=False, max_retries=0
    )
    with contained(folder):
        (log,) = run_inspect(
            task, model=model, log_dir=str(folder), display="log", log_level="error"
        )
    return log


def test_a_sample_is_the_question_and_its_reference() -> None:
    row = with_system(question_and_answer("Who?", "Me", id="a/1"), "Be brief.")
    (sample,) = build_inspect_task(task_of([row])).dataset
    assert sample.id == "a/1"
    assert sample.target == "Me"
    assert [(type(m), m.text) for m in sample.input if not isinstance(m, str)] == [
        (ChatMessageSystem, "Be brief."),
        (ChatMessageUser, "Who?"),
    ]


def test_worked_examples_are_shown_where_asked_for() -> None:
    row = with_system(question_and_answer("Who?", "Me", id="1"), "Be brief.")
    task = task_of([row], examples=tuple(chapter_rows(0, 2)))
    (plain,) = build_inspect_task(task).dataset
    (shown,) = build_inspect_task(task, with_examples=True).dataset
    assert [m.role for m in plain.input if not isinstance(m, str)] == ["system", "user"]
    assert [m.role for m in shown.input if not isinstance(m, str)] == [
        "system",
        *("user", "assistant") * 2,
        "user",
    ]
    assert log_name(task) != log_name(task, with_examples=True)
    assert build_inspect_task(task, with_examples=True).name == "t, 2 examples"


def test_what_is_configured_is_asked_for() -> None:
    task = build_inspect_task(
        task_of(chapter_rows(0, 2), max_tokens=9, temperature=0.5, num_epochs=3)
    )
    assert (task.config.max_tokens, task.config.temperature, task.epochs) == (9, 0.5, 3)


def test_the_version_changes_with_anything_that_is_asked_or_how_it_is_judged() -> None:
    rows = chapter_rows(0, 3)
    task = task_of(rows, examples=tuple(chapter_rows(10, 1)))
    first = task.questions[0]
    changed = [
        task,
        replace(task, name="other"),
        replace(task, max_tokens=9),
        replace(task, temperature=1.0),
        replace(task, num_epochs=2),
        replace(task, metric="exact_match"),
        replace(task, questions=task.questions[:2]),
        replace(task, questions=(replace(first, tools=(TOOL,)), *task.questions[1:])),
        replace(task, questions=(replace(first, reference=REFERENCE), *task.questions[1:])),
        replace(task, questions=(replace(first, check={"ordered": True}), *task.questions[1:])),
    ]
    versions = {build_inspect_task(one).version for one in changed}
    versions.add(build_inspect_task(task, with_examples=True).version)
    # The name is told apart by inspect itself; clusters and known rows change nothing asked.
    assert len(versions) == len(changed)
    regrouped = replace(
        task, questions=(replace(first, cluster="x", is_known=True), *task.questions[1:])
    )
    assert build_inspect_task(regrouped).version == build_inspect_task(task).version


def test_an_example_that_asks_a_test_question_is_refused() -> None:
    leak = with_system(
        question_and_answer("diagnosis:  term 2. Which chapter?", "x", id="leak"), "Be brief."
    )
    task = task_of(chapter_rows(0, 3), examples=(leak,))
    build_inspect_task(task)
    with pytest.raises(UserError, match="leak asks the same question as the test row icd/2"):
        build_inspect_task(task, with_examples=True)


def test_tools_images_and_calls_are_sent_as_clients_send_them(tmp_path: Path) -> None:
    row = Conversation(id="1", messages=(*ASKED_TURNS, REFERENCE), tools=(TOOL,))
    call = {
        "id": "x",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"number": "18"}'},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    with run_host(ToolHost(message, stop="tool_calls")) as host:
        log = run(build_inspect_task(task_of([row], metric="tool_call")), host, tmp_path)
    # One request: the call is not executed, and no answer to it is asked for.
    (body,) = host.requests
    assert body["messages"] == list(ASKED_TURNS)
    assert body["tools"] == [TOOL]
    assert body["tool_choice"] == "auto"
    assert prompt_sha256(body["messages"], body["tools"]) == prompt_sha256(ASKED_TURNS, [TOOL])
    assert (body["temperature"], body["max_tokens"]) == (0.0, 8)
    ((score,),) = ((one.scores or {}).values() for one in log.samples or [])
    assert score.value == 1.0
    assert "look_up" in (score.answer or "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"number": "19"}', '{"number": "18"}'),
        ('{"number": 18', '{"number": "18"}'),
        ("{,}", "{}"),
    ],
)
def test_calls_that_are_wrong_or_cannot_be_read_are_no_match(
    arguments: str, expected: str, tmp_path: Path
) -> None:
    wanted: ToolCall = {
        "id": "c2",
        "type": "function",
        "function": {"name": "look_up", "arguments": expected},
    }
    reference: Message = {"role": "assistant", "content": "", "tool_calls": [wanted]}
    row = Conversation(id="1", messages=(*ASKED_TURNS, reference), tools=(TOOL,))
    call = {"id": "x", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    with run_host(ToolHost(message, stop="tool_calls")) as host:
        log = run(build_inspect_task(task_of([row], metric="tool_call")), host, tmp_path)
    ((score,),) = ((one.scores or {}).values() for one in log.samples or [])
    assert score.value == 0.0
    assert score.explanation


def test_plain_questions_are_sent_plainly_and_judged_by_the_metric(tmp_path: Path) -> None:
    rows = chapter_rows(0, 3)
    host = LoopbackHost(reply=lambda model, messages: "circulatory.")
    with run_host(host):
        log = run(build_inspect_task(task_of(rows)), host, tmp_path)
    bodies = sorted(host.requests, key=lambda body: json.dumps(body["messages"]))
    assert [body["messages"] for body in bodies] == [list(row.messages[:-1]) for row in rows]
    assert not any("tools" in body or "tool_choice" in body for body in bodies)
    found = {sample.id: _score(sample.scores) for sample in log.samples or []}
    assert found == {"icd/0": 1.0, "icd/1": 0.0, "icd/2": 0.0}


def test_the_question_is_known_behind_the_model_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Asked] = []
    host = LoopbackHost(reply=lambda model, messages: "Skin")
    model = get_model("openai-api/own/m", base_url="http://nowhere/v1", api_key="k", memoize=False)
    generate = type(model.api).generate

    async def listening(*args: Any, **more: Any) -> Any:  # noqa: ANN401
        seen.append(ASKED.get())
        return await generate(*args, **more)

    monkeypatch.setattr(type(model.api), "generate", listening)
    task = build_inspect_task(task_of(chapter_rows(0, 2), num_epochs=2, temperature=1.0))
    with run_host(host):
        run(task, host, tmp_path)
    assert sorted(seen) == [Asked("t", f"icd/{n}", epoch) for n in (0, 1) for epoch in (1, 2)]


def test_a_prompt_beyond_the_context_is_an_error_not_an_answer(tmp_path: Path) -> None:
    host = LoopbackHost(reply=lambda model, messages: "Skin", max_words=3)
    with run_host(host):
        log = run(build_inspect_task(task_of(chapter_rows(0, 2))), host, tmp_path)
    assert log.status == "error"
    assert "does not fit the model's context" in (log.error.message if log.error else "")


def _score(scores: Any) -> Any:  # noqa: ANN401
    (score,) = scores.values()
    return score.value
