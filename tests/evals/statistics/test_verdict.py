from collections.abc import Sequence

import pytest

from configs.evaluation_schema import Verdict
from evals.statistics.verdict import decide, decide_overall, promote


@pytest.mark.parametrize(
    ("interval", "p_value", "verdict"),
    [
        ((0.001, 0.2), 0.049, "better"),
        ((0.001, 0.2), 0.05, "inconclusive"),
        ((0.0, 0.2), 0.001, "inconclusive"),
        ((-0.2, -0.001), 0.049, "worse"),
        ((-0.2, -0.001), 0.2, "inconclusive"),
        ((-0.029, 0.029), 0.9, "equivalent"),
        ((-0.03, 0.029), 0.9, "inconclusive"),
        ((-0.029, 0.03), 0.9, "inconclusive"),
        ((0.001, 0.02), 0.01, "better"),
        ((0.001, 0.02), 0.2, "equivalent"),
    ],
)
def test_verdict_follows_its_rule(
    interval: tuple[float, float], p_value: float, verdict: str
) -> None:
    assert decide(interval, p_value, confidence=0.95, margin=0.03) == verdict


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [
        (["better", "worse"], "worse"),
        (["better", "inconclusive"], "better"),
        (["equivalent", "equivalent"], "equivalent"),
        (["equivalent", "inconclusive"], "inconclusive"),
        (["equivalent", "better"], "better"),
        (["inconclusive"], "inconclusive"),
    ],
)
def test_overall_verdict_follows_its_rule(verdicts: Sequence[Verdict], overall: Verdict) -> None:
    assert decide_overall(verdicts) == overall


def test_no_task_has_no_verdict() -> None:
    with pytest.raises(ValueError, match="primary task"):
        decide_overall([])


@pytest.mark.parametrize(
    ("verdict", "guard_passed", "worse_tasks", "promoted", "reason"),
    [
        ("better", True, [], True, "promotion asks for better: holds"),
        ("better", None, [], True, "No guard set was asked"),
        ("better", False, [], False, "does not show that the mean has stayed"),
        ("better", True, ["formats"], False, "Worse than the base on guard tasks: formats"),
        ("equivalent", True, [], False, "it would take better"),
        ("worse", True, [], False, "it would take better"),
    ],
)
def test_all_parts_have_to_hold_for_promotion(
    verdict: Verdict,
    guard_passed: bool | None,
    worse_tasks: list[str],
    promoted: bool,
    reason: str,
) -> None:
    decision = promote(
        verdict, guard_passed=guard_passed, worse_guard_tasks=worse_tasks, promote_on=["better"]
    )
    assert decision.promote is promoted
    assert any(reason in sentence for sentence in decision.reasons)
    assert decision.reasons[-1] == ("So: promote." if promoted else "So: do not promote.")


def test_equivalence_can_be_enough() -> None:
    wanted: list[Verdict] = ["better", "equivalent"]
    decision = promote("equivalent", guard_passed=True, worse_guard_tasks=[], promote_on=wanted)
    assert decision.promote
    assert "better or equivalent" in decision.reasons[0]
