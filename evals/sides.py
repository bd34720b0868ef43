"""Who is asked what: the sides of a comparison, and each one's share of the questions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from inspect_ai import Task

from evals.targets import Target
from evals.task import EvaluationTask
from evals.tasks import build_inspect_task, log_name

SideName = Literal["base", "variant", "baseline"]
OpenSide = Callable[[], AbstractContextManager[Target]]


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Who can be asked.

    variant and base: served only while their block runs, one after the other, because two models
    may not fit one card; baseline: a hosted or recorded one, None where the base is the baseline;
    judge: None where no task needs one. Without a variant only the baseline can be asked.
    """

    variant: OpenSide | None = None
    base: OpenSide | None = None
    baseline: Target | None = None
    judge: Target | None = None


class Prompted(NamedTuple):
    """A task with one of its prompts."""

    task: EvaluationTask
    with_examples: bool

    @property
    def log_name(self) -> str:
        """Its name in inspect's logs."""
        return log_name(self.task, with_examples=self.with_examples)

    def build(self) -> Task:
        """What inspect asks."""
        return build_inspect_task(self.task, with_examples=self.with_examples)


def of_variant(tasks: Sequence[EvaluationTask]) -> list[Prompted]:
    """The variant is asked everything, without worked examples."""
    return [Prompted(task, False) for task in tasks]


def of_baseline(tasks: Sequence[EvaluationTask]) -> list[Prompted]:
    """The baseline is asked the domain's tasks, without and with worked examples."""
    domain = [task for task in tasks if task.role != "guard"]
    plain = [Prompted(task, False) for task in domain]
    return plain + [Prompted(task, True) for task in domain if task.examples]


def of_guards(tasks: Sequence[EvaluationTask]) -> list[Prompted]:
    """The base is asked what the adapter may have cost."""
    return [Prompted(task, False) for task in tasks if task.role == "guard"]


def count_questions(prompted: Sequence[Prompted]) -> int:
    """Answers that a side has to give."""
    return sum(len(one.task.questions) * one.task.num_epochs for one in prompted)
