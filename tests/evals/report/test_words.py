import pytest

from configs.evaluation_schema import Verdict
from evals.report import words
from evals.report.guarantees import describe
from evals.report.method import rules
from evals.report.notes import judge_notes, side_notes
from tests.evals.report import factories


def test_numbers_are_written_for_people() -> None:
    assert [words.signed(x) for x in (3.14, -3.14, 0.04, -0.04)] == ["+3.1", "−3.1", "0.0", "0.0"]
    assert [words.p_value(p) for p in (0.00099, 0.0123)] == ["< 0.001", "0.012"]
    assert [words.seconds(s) for s in (None, 0.05, 1.234)] == ["–", "50 ms", "1.23 s"]
    assert words.counted(1, "question") == "1 question"


def test_one_main_task_gives_its_difference_and_several_their_span() -> None:
    assert words.headline(factories.minimal()[0]) == "Better: +50.0 points"
    assert words.headline(factories.realistic()[0]) == "Better: +5.0 to +60.0 points on 3 tasks"


@pytest.mark.parametrize(
    ("verdict", "promote", "told"),
    [
        ("better", True, "Promote: demo-medical can take the place"),
        ("worse", False, "is worse than"),
        ("equivalent", False, "is as good as"),
        ("inconclusive", False, "do not show whether"),
    ],
)
def test_the_recommendation_follows_the_decision(
    verdict: Verdict, promote: bool, told: str
) -> None:
    result, _ = factories.minimal()
    result |= {"verdict": verdict, "promote": promote}
    assert told in words.recommendation(result)


@pytest.mark.parametrize(
    ("delta", "worse", "told"),
    [
        (-0.2, ["Formats"], "has become worse outside its domain (Formats)"),
        (-0.2, [], "seems to have lost 20.0 points outside its domain"),
        (-0.01, [], "these questions do not rule it out"),
    ],
)
def test_a_guard_set_that_does_not_hold_is_told_as_what_it_shows(
    delta: float, worse: list[str], told: str
) -> None:
    result, _ = factories.realistic()
    assert result["guard"] is not None
    result["guard"] |= {"delta": delta, "worse_tasks": worse}
    assert told in words.recommendation(result)


def test_many_main_tasks_are_counted() -> None:
    ((name, told),) = words.summaries(factories.many()[0])
    assert name == "15 main tasks"
    assert "15 inconclusive" in told


def test_corpus_scores_are_not_told_as_counts() -> None:
    task = factories.realistic()[0]["tasks"][1]
    assert "scored 60.0 of 100" in words.summary(task)


def test_what_is_to_say_of_a_judge_stands_beside_its_task() -> None:
    task = factories.realistic()[0]["tasks"][2]
    assert task["judge"] is not None
    notes = judge_notes(task)
    assert [note.text for note in notes if not note.is_warning] == task["judge"]["facts"]
    assert [note.text for note in notes if note.is_warning] == task["judge"]["warnings"]
    assert len(notes) == 5


def test_known_questions_without_a_clean_comparison_are_a_warning() -> None:
    task = factories.build_task(factories.build_evidence("one", num_known=40))
    assert any(note.is_warning and "40 questions of 40" in note.text for note in side_notes(task))


def test_rules_name_only_what_took_part() -> None:
    config = factories.build_config().evaluation
    small = dict(rules(factories.minimal()[0], config))
    whole = dict(rules(factories.realistic()[0], config))
    assert {"Several main tasks", "Outside the domain", "Groups", "Overall"} & small.keys() == set()
    assert {"Several main tasks", "Outside the domain", "Groups", "Overall"} <= whole.keys()
    assert small["Promote"] == "Where the verdict is better."
    assert "± 3 points" in small["Equivalent"]


def test_simulated_figures_stand_beside_what_was_wanted() -> None:
    note = {
        "date": "2026-11-01",
        "machine": "any",
        "versions": {},
        "num_comparisons": 300_000,
        "num_cells": 150,
        "mean_coverage": 0.9512,
        "coverage_range": [0.941, 0.962],
        "share_of_cells_covered": 0.99,
        "rare_coverage_range": [0.95, 0.999],
        "false_better_max": 0.034,
        "false_better_mean": 0.021,
        "non_inferiority_max": 0.049,
        "family_error_max": 0.041,
        "power_deviation_max": 0.017,
        "falls_short": [f"cell {n}" for n in range(7)],
        "cells": [],
    }
    told = describe(note)  # type: ignore[arg-type]
    assert told.introduction.startswith("300,000 comparisons")
    lines = dict(told.lines)
    assert (
        "at most 3.4 % in any setting (wanted: at most 5 %)" in lines["Equal models called better"]
    )
    assert "95.1 % of comparisons on average, 94.1 to 96.2 %" in " ".join(lines.values())
    assert "7: cell 0; cell 1; cell 2; cell 3; cell 4; and 2 more." in lines.values()
