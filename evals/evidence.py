"""All answers of an evaluation, task by task: what results and reports are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.task import Answer, EvaluationTask


@dataclass(frozen=True, kw_only=True)
class TaskEvidence:
    """Both sides' answers to one task, each list in the order of questions, then epochs.

    baseline: by prompt (`zero-shot`, `4 examples`), zero-shot first; of a guard task the base's;
    variant: zero-shot; baseline_name and baseline_model: who that is, in reports and in requests;
    judged answers carry the judge's scores.
    """

    task: EvaluationTask
    baseline_name: str
    baseline_model: str
    baseline: Mapping[str, Sequence[Answer]]
    variant: Sequence[Answer]
