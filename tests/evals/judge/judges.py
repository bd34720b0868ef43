"""Judges of known character behind a real host, and the answers that they are shown."""

import json
import re
from collections.abc import Callable, Sequence

from configs.evaluation_schema import JudgeConfig, MetricName
from data.conversation import Message, text_of
from evals.task import Answer, EvaluationTask, Question

Messages = list[dict[str, str]]

CONFIG = JudgeConfig(base_url="http://127.0.0.1:9/v1", model="judge-7b")


def make_question(number: int, *, asked: str | None = None, reference: str = "") -> Question:
    return Question(
        id=f"q/{number}",
        messages=(Message(role="user", content=asked or f"What is {number} + 1?"),),
        reference=Message(role="assistant", content=reference),
        cluster=f"q/{number}",
    )


def make_task(
    num_questions: int,
    *,
    metric: MetricName = "pairwise",
    num_epochs: int = 1,
    rubric: str = "",
    reference: str = "",
) -> EvaluationTask:
    return EvaluationTask(
        name="sums",
        role="primary",
        metric=metric,
        questions=tuple(make_question(n, reference=reference) for n in range(num_questions)),
        max_tokens=16,
        temperature=0.7 if num_epochs > 1 else 0.0,
        num_epochs=num_epochs,
        rubric=rubric,
    )


def make_answer(id: str, text: str, *, epoch: int = 1, stop_reason: str = "stop") -> Answer:
    return Answer(
        id=id,
        epoch=epoch,
        question="",
        reference="",
        text=text,
        tool_calls=(),
        score=0.0,
        label="",
        stop_reason=stop_reason,
        prompt_tokens=1,
        completion_tokens=1,
        seconds=0.1,
    )


def make_answers(texts: Sequence[str]) -> list[Answer]:
    return [make_answer(f"q/{n}", text) for n, text in enumerate(texts)]


def between_marks(prompt: str, title: str) -> str:
    """The piece called `title`, found by the key that the prompt itself names first."""
    named = re.search(r"marks with the key (\w+)\.", prompt)
    assert named is not None
    key = named[1]
    found = re.findall(
        rf"^\[{title} {key}\]\n(.*?)\n\[end of {title} {key}\]$", prompt, re.DOTALL | re.MULTILINE
    )
    assert len(found) == 1, f"{title} stands {len(found)} times in {prompt}"
    return str(found[0])


def verdict(choice: str) -> str:
    return json.dumps({"verdict": choice})


def longer_judge(model: str, messages: Messages) -> str:
    prompt = messages[-1]["content"]
    a, b = (len(between_marks(prompt, f"answer {letter}")) for letter in "AB")
    return "More is better.\n" + verdict("tie" if a == b else "A" if a > b else "B")


def first_judge(model: str, messages: Messages) -> str:
    return "A it is.\n" + verdict("A")


def sound_judge(model: str, messages: Messages) -> str:
    """Knows the sum; quotes both answers before it decides, as judges do."""
    prompt = messages[-1]["content"]
    a, b = (between_marks(prompt, f"answer {letter}") for letter in "AB")
    right = [holds_sum(prompt, answer) for answer in (a, b)]
    choice = "tie" if right[0] == right[1] else "A" if right[0] else "B"
    return f"A says: {a}\nB says: {b}\nSo:\n```json\n{verdict(choice)}\n```"


def rubbish_judge(model: str, messages: Messages) -> str:
    return "Both have their merits; on balance {A}, or perhaps {B}."


def obedient_judge(model: str, messages: Messages) -> str:
    """Does what the first answer that gives an order says, wherever it stands."""
    order = re.search(r"say (A|B) is better", messages[-1]["content"])
    return verdict(order[1] if order else "tie")


def grading_judge(model: str, messages: Messages) -> str:
    prompt = messages[-1]["content"]
    right = holds_sum(prompt, between_marks(prompt, "answer"))
    return json.dumps({"reason": "seen", "grade": 5 if right else 2})


def holds_sum(prompt: str, answer: str) -> bool:
    asked = re.search(r"What is (\d+) \+ 1\?", between_marks(prompt, "request"))
    assert asked is not None
    return str(int(asked[1]) + 1) in re.findall(r"\d+", answer)


def let_judge(judge: Callable[[str, Messages], str], asked: EvaluationTask) -> dict[str, Answer]:
    """The judge's replies by prompt id, as `ask` would bring them."""
    replies = {}
    for question in asked.questions:
        messages = [{"role": turn["role"], "content": text_of(turn)} for turn in question.messages]
        replies[question.id] = make_answer(question.id, judge("judge-7b", messages))
    return replies
