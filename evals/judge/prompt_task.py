"""The judge's prompts as a task, so that they are asked, logged and resumed as all others."""

from collections.abc import Iterable

from configs.evaluation_schema import JudgeConfig
from data.conversation import Message
from evals.judge.material import prompt_id
from evals.task import EvaluationTask, Question


def judged_name(task: EvaluationTask) -> str:
    """Name of the task that holds the judge's prompts about `task`."""
    return f"{task.name} (judge)"


def judge_task(
    task: EvaluationTask, prompts: Iterable[tuple[Question, Message]], config: JudgeConfig
) -> EvaluationTask:
    """One question for each different prompt, named by `prompt_id`, at temperature 0."""
    questions: dict[str, Question] = {}
    for about, message in prompts:
        name = prompt_id(about, message)
        questions[name] = Question(
            id=name,
            messages=(message,),
            reference=Message(role="assistant", content=""),
            cluster=about.cluster,
        )
    return EvaluationTask(
        name=judged_name(task),
        role=task.role,
        metric=task.metric,
        questions=tuple(questions.values()),
        max_tokens=config.max_tokens,
        temperature=0.0,
    )
