"""Questions as an inspect task: what is sent, once each, and what the answer is worth."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    GenerateConfig,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolCall as InspectToolCall

from configs.errors import UserError
from data.conversation import ContentPart, Conversation, Message, Role, ToolCall, text_of
from evals.asked import ASKED, Asked
from evals.metrics.registry import find_metric
from evals.metrics.score import Reply
from evals.prompts import asked_text, build_prompt, name_prompt, turn_text
from evals.task import EvaluationTask, Question

TEXT_TYPES: dict[Role, type[ChatMessageSystem | ChatMessageUser]] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
}


def log_name(task: EvaluationTask, *, with_examples: bool = False) -> str:
    """The name of a task's log: another one for the prompt with worked examples."""
    return f"{task.name}, {name_prompt(len(task.examples))}" if with_examples else task.name


def build_inspect_task(task: EvaluationTask, *, with_examples: bool = False) -> Task:
    """A task of one sample a question, judged by the task's metric.

    with_examples: the task's worked ones stand between a question's system turn and the rest. The
    version is a hash of all that is asked and of the metric. Tools are offered and never executed:
    the first answer counts. Errors: `UserError` where an example asks what a question asks.
    """
    examples = task.examples if with_examples else ()
    _refuse_leaks(task.questions, examples)
    name = log_name(task, with_examples=with_examples)
    samples = [
        Sample(
            id=question.id,
            input=[_chat_message(turn) for turn in build_prompt(question, examples)],
            target=turn_text(question.reference),
        )
        for question in task.questions
    ]
    return Task(
        name=name,
        version=_version(task, examples),
        dataset=MemoryDataset(samples, name=name),
        solver=_build_solver(name, task.questions, examples),
        scorer=_build_scorer(task),
        config=GenerateConfig(temperature=task.temperature, max_tokens=task.max_tokens),
        epochs=Epochs(task.num_epochs, "mean"),
    )


def _version(task: EvaluationTask, examples: Sequence[Conversation]) -> str:
    asked = [
        [one.id, build_prompt(one, examples), one.tools, one.reference, dict(one.check)]
        for one in task.questions
    ]
    told = [task.metric, task.max_tokens, task.temperature, task.num_epochs, asked]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _build_solver(
    name: str, questions: Sequence[Question], examples: Sequence[Conversation]
) -> Solver:
    """One request a question; a prompt that the model cannot hold is an error, not an answer.

    inspect turns a host's refusal of a long prompt into an answer that holds its message.
    """
    bodies = {one.id: _exact_body(one, examples) for one in questions}

    @solver(name="answer_once")
    def answer_once() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            question_id = str(state.sample_id)
            ASKED.set(Asked(task=name, id=question_id, epoch=state.epoch))
            body = bodies[question_id]
            if body is None:
                state = await generate(state, tool_calls="none")
            else:
                state = await generate(state, tool_calls="none", extra_body=body)
            if state.output.stop_reason == "model_length":
                raise ValueError(
                    f"the prompt does not fit the model's context: {state.output.completion}"
                )
            return state

        return solve

    return answer_once()


def _exact_body(question: Question, examples: Sequence[Conversation]) -> dict[str, Any] | None:
    """What goes into the request's body as it stands; None where inspect's own form is the same.

    inspect keeps of a tool's schema what it knows (no `pattern`, no `$ref`), adds to it, writes the
    arguments of calls anew and says how closely to look at images: the model would see another
    prompt than clients send.
    """
    prompt = build_prompt(question, examples)
    if not question.tools and all(_is_text(turn) for turn in prompt):
        return None
    offered = {"tools": list(question.tools), "tool_choice": "auto"} if question.tools else {}
    return {"messages": prompt, **offered}


def _is_text(turn: Message) -> bool:
    is_plain = turn["role"] != "tool" and "tool_calls" not in turn
    return is_plain and isinstance(turn["content"], str)


def _build_scorer(task: EvaluationTask) -> Scorer:
    metric = find_metric(task.metric)
    questions: Mapping[str, Question] = {one.id: one for one in task.questions}

    @scorer(name=task.metric, metrics=[mean(), stderr()])
    def judged() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            made = state.output.message.tool_calls if state.output.choices else None
            calls = tuple(read_tool_call(call) for call in made or ())
            reply = Reply(text=state.output.completion, tool_calls=calls)
            found = metric(reply, questions[str(state.sample_id)])
            return Score(value=found.value, answer=found.label, explanation=found.why)

        return score

    return judged()


def read_tool_call(call: InspectToolCall) -> ToolCall:
    """A call that a model made; arguments that are no JSON stay such, lest they count as none."""
    # Of arguments that are no JSON, inspect keeps the error, which quotes them, and empty ones.
    arguments = call.parse_error or json.dumps(
        call.arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function, "arguments": arguments},
    }


def _chat_message(turn: Message) -> ChatMessage:
    if turn["role"] == "assistant":
        calls = [_inspect_call(call) for call in turn.get("tool_calls", ())]
        return ChatMessageAssistant(content=text_of(turn), tool_calls=calls or None)
    if turn["role"] == "tool":
        return ChatMessageTool(content=text_of(turn), tool_call_id=turn.get("tool_call_id"))
    content = turn["content"]
    shown = content if isinstance(content, str) else [_content(part) for part in content]
    return TEXT_TYPES[turn["role"]](content=shown)


def _content(part: ContentPart) -> Content:
    if part["type"] == "text":
        return ContentText(text=part["text"])
    return ContentImage(image=part["image_url"]["url"])


def _inspect_call(call: ToolCall) -> InspectToolCall:
    function = call["function"]
    return InspectToolCall(
        id=call["id"], function=function["name"], arguments=json.loads(function["arguments"])
    )


def _refuse_leaks(questions: Sequence[Question], examples: Sequence[Conversation]) -> None:
    asked = {asked_text(one.messages): one.id for one in questions}
    for example in examples:
        question_id = asked.get(asked_text(example.messages[:-1]))
        if question_id is not None:
            raise UserError(
                f"the training row {example.id} asks the same question as the test row "
                f"{question_id}",
                remedy="remove one, or give both the same `group`: then they stay on one side",
            )
