"""The verdict out of made-up answers, whose scores, counts and p-values can be told by hand."""

from dataclasses import replace

import pytest

from evals.evidence import TaskEvidence
from tests.evals.compared import compare, guard, with_variant
from tests.evals.report.factories import build_evidence

# Six won and none lost: McNemar's exact p is 2 / 2**6, one below 0.05 and two of them not.
SIX = (0, 6)
P_SIX = 0.03125


# The verdict.


def test_the_verdict_is_by_p_values_adjusted_over_the_primary_tasks() -> None:
    alone = compare(build_evidence("a", right=SIX))
    assert alone["verdict"] == alone["tasks"][0]["verdict"] == "better"
    assert alone["tasks"][0]["num_samples_to_settle"] is None
    both = compare(build_evidence("a", right=SIX), build_evidence("b", right=SIX))
    for task in both["tasks"]:
        assert (task["p_value"], task["adjusted_p_value"]) == (P_SIX, 2 * P_SIX)
        assert task["interval"][0] > 0
        assert task["verdict"] == "inconclusive"
        assert task["num_samples_to_settle"] is not None
    assert (both["verdict"], both["promote"]) == ("inconclusive", False)


def test_holm_asks_less_of_the_second_smallest() -> None:
    first, second = compare(build_evidence("a", right=SIX), build_evidence("b", right=(0, 20)))[
        "tasks"
    ]
    assert (first["p_value"], first["adjusted_p_value"]) == (P_SIX, P_SIX)
    assert second["adjusted_p_value"] == pytest.approx(2 * second["p_value"], rel=1e-5)
    assert first["verdict"] == second["verdict"] == "better"


def test_one_worse_primary_task_is_worse_in_all() -> None:
    result = compare(build_evidence("a", right=(0, 30)), build_evidence("b", right=(30, 0)))
    assert [task["verdict"] for task in result["tasks"]] == ["better", "worse"]
    assert (result["verdict"], result["promote"]) == ("worse", False)


def test_exploratory_and_guard_tasks_neither_decide_nor_count_among_the_primary() -> None:
    explored = [build_evidence(name, role="exploratory", right=SIX) for name in ("b", "c")]
    equal = build_evidence("a", right=(20, 20))
    result = compare(equal, *explored)
    assert [task["verdict"] for task in result["tasks"]] == ["inconclusive", "better", "better"]
    # Benjamini and Hochberg's, where Holm's would double both.
    assert [task["adjusted_p_value"] for task in result["tasks"]] == [1.0, P_SIX, P_SIX]
    assert (result["verdict"], result["promote"]) == ("inconclusive", False)
    worse = build_evidence("b", role="exploratory", right=(30, 0))
    result = compare(build_evidence("a", right=SIX), worse, guard("g", (40, 40)))
    assert [task["verdict"] for task in result["tasks"]][:2] == ["better", "worse"]
    assert result["tasks"][0]["adjusted_p_value"] == P_SIX
    assert result["verdict"] == "better"


def test_what_counts_as_equivalent_and_what_is_promoted_is_configured() -> None:
    evidence = build_evidence("a", num=200, right=(100, 100), num_examples=0)
    same = with_variant(evidence, evidence.baseline["zero-shot"])
    wide = compare(same, equivalence_margin=0.05, promote_on=["better", "equivalent"])
    assert (wide["verdict"], wide["promote"]) == ("equivalent", True)
    assert (wide["equivalence_margin"], wide["promote_on"]) == (0.05, ["better", "equivalent"])
    narrow = compare(same, equivalence_margin=0.01, promote_on=["better", "equivalent"])
    assert (narrow["verdict"], narrow["promote"]) == ("inconclusive", False)


def test_a_higher_confidence_asks_for_more() -> None:
    result = compare(build_evidence("a", right=SIX), confidence=0.99)
    assert (result["confidence"], result["verdict"]) == (0.99, "inconclusive")


# Guard tasks.


def test_guard_tasks_are_pooled_with_equal_weight_and_each_is_judged() -> None:
    won = build_evidence("a", right=(0, 30))
    result = compare(
        won, guard("kept", (40, 40)), guard("lost", (80, 60), num=80), guard={"margin": 0.2}
    )
    own, kept, lost = result["tasks"]
    pooled = result["guard"]
    assert pooled is not None
    # Of means 0 and -0.25 over 40 and 80 questions; over all questions it would be -0.167.
    assert (pooled["base_score"], pooled["variant_score"], pooled["delta"]) == (1, 0.875, -0.125)
    assert pooled["non_inferiority"]["margin"] == 0.2
    assert pooled["non_inferiority"]["passed"]
    assert -0.2 < pooled["non_inferiority"]["lower_bound"] < -0.125
    assert own["non_inferiority"] is None
    assert kept["non_inferiority"] is not None
    assert kept["non_inferiority"]["passed"]
    assert lost["non_inferiority"] is not None
    assert lost["non_inferiority"]["lower_bound"] < -0.25
    assert not lost["non_inferiority"]["passed"]
    assert (kept["verdict"], lost["verdict"]) == ("inconclusive", "worse")
    # The mean holds; the task that has got worse is enough.
    assert pooled["worse_tasks"] == ["lost"]
    assert (result["verdict"], result["promote"]) == ("better", False)
    assert "Worse than the base on guard tasks: lost." in result["reasons"]


def test_a_guard_set_too_small_to_show_that_it_holds_stops_the_promotion() -> None:
    won = build_evidence("a", right=(0, 30))
    result = compare(won, guard("few", (20, 20), num=20))
    assert result["guard"] is not None
    assert (result["guard"]["delta"], result["guard"]["worse_tasks"]) == (0.0, [])
    assert not result["guard"]["non_inferiority"]["passed"]
    assert (result["verdict"], result["promote"]) == ("better", False)
    enough = compare(won, guard("many", (200, 200), num=200))
    assert enough["promote"]
    without = compare(won)
    assert without["guard"] is None
    assert without["promote"]
    assert any("what the adapter has cost elsewhere is unknown" in r for r in without["reasons"])


def test_guard_tasks_are_adjusted_among_themselves() -> None:
    guards = [guard("b", (6, 0)), guard("c", (40, 40))]
    tasks = compare(build_evidence("a", right=SIX), *guards)["tasks"]
    assert [task["adjusted_p_value"] for task in tasks] == [P_SIX, 2 * P_SIX, 1.0]


# Prompts, known questions, epochs, macro-F1.


def test_the_baseline_is_judged_by_its_better_prompt() -> None:
    evidence = build_evidence("a", right=(10, 30))
    [task] = compare(evidence)["tasks"]
    assert [one["prompt"] for one in task["baseline"]["prompts"]] == ["zero-shot", "4 examples"]
    assert (task["baseline"]["prompt"], task["baseline"]["score"]) == ("4 examples", 0.25)
    plain, shown = evidence.baseline.values()
    turned = replace(evidence, baseline={"zero-shot": shown, "4 examples": plain})
    [task] = compare(turned)["tasks"]
    assert (task["baseline"]["prompt"], task["baseline"]["score"]) == ("zero-shot", 0.25)
    assert task["delta"] == 0.5


def test_in_a_tie_the_prompt_with_examples_counts() -> None:
    evidence = build_evidence("a", right=(0, 30))
    plain, shown = evidence.baseline.values()
    shown = [replace(one, seconds=7.0) for one in shown]
    tied = replace(evidence, baseline={"zero-shot": plain, "4 examples": shown})
    result = compare(tied)
    assert result["tasks"][0]["baseline"]["prompt"] == "4 examples"
    assert result["tasks"][0]["baseline"]["median_seconds"] == 7.0
    assert result["cost"]["sides"][0]["median_seconds"] == 7.0


def test_the_score_without_known_questions_stands_beside_the_full_one() -> None:
    # Of the variant's 20 right answers 10 are to questions that training gave away.
    [task] = compare(build_evidence("a", right=(10, 20), num_known=10, num_epochs=2))["tasks"]
    assert (task["num_known"], task["delta"], task["num_samples"]) == (10, 0.25, 40)
    clean = task["clean"]
    assert clean is not None
    low, high = clean.pop("interval")  # type: ignore[misc]
    assert low < 0 < high
    third = 0.333333
    assert dict(clean) == {
        "num_samples": 30,
        "baseline_score": third,
        "variant_score": third,
        "delta": 0.0,
    }


@pytest.mark.parametrize("num_known", [0, 39, 40])
def test_too_few_clean_questions_give_no_score(num_known: int) -> None:
    [task] = compare(build_evidence("a", num_known=num_known))["tasks"]
    assert (task["num_known"], task["clean"]) == (num_known, None)


def test_epochs_are_averaged_by_question() -> None:
    evidence = build_evidence("a", num=20, right=(0, 10), num_epochs=2)
    [task] = compare(evidence)["tasks"]
    assert (task["num_won"], task["num_lost"], task["num_tied"]) == (10, 0, 10)
    halved = [
        replace(one, score=0.0, text="no") if one.epoch == 2 else one for one in evidence.variant
    ]
    [task] = compare(with_variant(evidence, halved))["tasks"]
    assert (task["variant"]["score"], task["delta"]) == (0.25, 0.25)
    assert (task["num_won"], task["num_lost"], task["num_tied"]) == (10, 0, 10)
    assert (task["num_samples"], task["num_epochs"]) == (20, 2)
    assert task["variant"]["num_correct"] is None
    assert task["variant"]["completion_tokens"] == 40 * 9


def yes_no(right: tuple[int, int], *, num_epochs: int = 1) -> TaskEvidence:
    """Thirty questions to be answered yes, ten no; a miss is the other word."""
    return build_evidence(
        "a",
        metric="macro_f1",
        right=right,
        num_epochs=num_epochs,
        expect=lambda n: "yes" if n < 30 else "no",
        miss=lambda n: "no" if n < 30 else "yes",
    )


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_macro_f1_is_one_figure_of_all_answers(num_epochs: int) -> None:
    [task] = compare(yes_no((10, 30), num_epochs=num_epochs))["tasks"]
    # Variant: all yes, F1 60/70 and 0. Baseline: all no, F1 0 and 20/50.
    assert (task["variant"]["score"], task["baseline"]["score"]) == (0.428571, 0.2)
    assert task["delta"] == 0.228571
    assert task["variant"]["num_correct"] == (30 if num_epochs == 1 else None)
    for side in (task["variant"], task["baseline"]):
        low, high = side["interval"]
        assert low < side["score"] < high
    assert (task["num_won"], task["num_lost"]) == (30, 10)
    assert "exchang" in task["test_method"] or "permut" in task["test_method"]


def test_labels_of_every_epoch_count() -> None:
    evidence = yes_no((10, 40), num_epochs=2)
    answers = [
        replace(one, label="no" if one.reference == "yes" else "yes") if one.epoch == 2 else one
        for one in evidence.variant
    ]
    [task] = compare(with_variant(evidence, answers))["tasks"]
    # yes: 30 right, 10 wrong, 30 missed; no: 10 right, 30 wrong, 10 missed.
    assert task["variant"]["score"] == round((60 / 100 + 20 / 60) / 2, 6)
