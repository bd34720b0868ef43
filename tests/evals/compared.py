"""Results out of made-up answers, for tests that vary these answers."""

from collections.abc import Sequence
from dataclasses import replace

from evals.build_result import build_result
from evals.evidence import TaskEvidence
from evals.gather import Gathered
from evals.results import ComparisonResult
from evals.task import Answer
from tests.evals.report.factories import build_config, build_evidence


def compare(*evidence: TaskEvidence, **evaluation: object) -> ComparisonResult:
    return build_result(gathered(evidence), config=build_config(**evaluation))


def gathered(evidence: Sequence[TaskEvidence]) -> Gathered:
    return Gathered(tasks=[one.task for one in evidence], evidence=list(evidence))


def guard(name: str, right: tuple[int, int], *, num: int = 40) -> TaskEvidence:
    return build_evidence(name, num=num, role="guard", metric="checks", right=right)


def with_variant(evidence: TaskEvidence, answers: Sequence[Answer]) -> TaskEvidence:
    return replace(evidence, variant=answers)
