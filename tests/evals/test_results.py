import json
from collections.abc import Sequence

import pytest

from evals.asking import Answer
from evals.results import (
    ZERO_SHOT,
    ComparisonResult,
    Evidence,
    build_result,
    count_changed_answers,
    name_prompt,
)
from evals.targets import Target
from tests.evals.conftest import BuildConfig


def answers(correct: Sequence[bool], *, tokens: int | None = 3) -> list[Answer]:
    return [
        Answer(
            id=str(n),
            question=f"question {n}",
            reference="yes",
            answer="yes" if right else "no",
            correct=right,
            prompt_tokens=tokens,
            completion_tokens=1,
            seconds=0.1 * n,
        )
        for n, right in enumerate(correct)
    ]


def build(build_config: BuildConfig, evidence: Evidence) -> ComparisonResult:
    return build_result(
        evidence,
        settings=build_config().evaluation,
        baseline=Target("Base", "http://a/v1", "base", api_key="sk-secret"),
        variant=Target("Mine", "http://b/v1", "mine"),
    )


def evidence(zero_shot: Sequence[bool], shown: Sequence[bool], ours: Sequence[bool]) -> Evidence:
    by_prompt = {ZERO_SHOT: answers(zero_shot), "4 examples": answers(shown)}
    return Evidence(baseline=by_prompt, variant=answers(ours), examples=())


def test_the_contract_of_comparison_json(build_config: BuildConfig) -> None:
    shown, ours = [True] * 10 + [False] * 30, [False] * 2 + [True] * 34 + [False] * 4
    result = build(build_config, evidence([False] * 40, shown, ours))
    assert result["verdict"] == "better"
    (task,) = result["tasks"]
    assert task["name"] == "diagnosis to chapter"
    assert task["num_samples"] == 40
    assert (task["baseline"]["model"], task["baseline"]["score"]) == ("base", 0.25)
    assert (task["variant"]["model"], task["variant"]["score"]) == ("mine", 0.85)
    assert task["delta"] == 0.6
    low, high = task["ci95"]
    assert 0.3 < low < 0.6 < high < 0.85
    # 26 wins and 2 losses: 2 * (1 + 28 + 378) / 2**28.
    assert task["p_value"] == pytest.approx(2 * 407 / 2**28, rel=1e-5)
    assert (task["num_won"], task["num_lost"], task["num_tied"]) == (26, 2, 12)
    assert task["num_answers_changed"] == 34
    assert task["verdict"] == "better"
    assert 0.1 < task["minimum_detectable_effect"] < 0.4
    assert json.loads(json.dumps(result)) == result
    assert "sk-secret" not in json.dumps(result)


def test_the_baseline_is_judged_by_its_better_prompt(build_config: BuildConfig) -> None:
    better_without = evidence([True] * 8 + [False] * 2, [True] * 5 + [False] * 5, [True] * 10)
    (task,) = build(build_config, better_without)["tasks"]
    assert (task["baseline"]["prompt"], task["baseline"]["score"]) == (ZERO_SHOT, 0.8)
    assert [(p["prompt"], p["num_correct"]) for p in task["baseline"]["prompts"]] == [
        (ZERO_SHOT, 8),
        ("4 examples", 5),
    ]
    tie = evidence([True] * 5 + [False] * 5, [False] * 5 + [True] * 5, [True] * 10)
    assert tie.better_prompt == "4 examples"
    alone = Evidence(baseline={ZERO_SHOT: answers([False, True])}, variant=(), examples=())
    assert alone.better_prompt == ZERO_SHOT


def test_timings_do_not_change_the_result(build_config: BuildConfig) -> None:
    first = evidence([False] * 12, [False] * 12, [True] * 12)
    slow = [Answer(**{**vars(answer), "seconds": 99.0}) for answer in first.baseline["4 examples"]]
    by_prompt = {**first.baseline, "4 examples": slow}
    second = Evidence(baseline=by_prompt, variant=first.variant, examples=())
    assert build(build_config, first) == build(build_config, second)


def test_tokens_are_unknown_where_one_answer_lacks_them(build_config: BuildConfig) -> None:
    ours = [*answers([True] * 11), *answers([True], tokens=None)]
    some = Evidence(baseline={ZERO_SHOT: answers([False] * 12)}, variant=ours, examples=())
    (task,) = build(build_config, some)["tasks"]
    assert task["variant"]["prompt_tokens"] is None
    assert task["variant"]["completion_tokens"] == 12
    assert task["baseline"]["prompt_tokens"] == 36


def test_changed_answers_are_counted_to_the_letter() -> None:
    assert count_changed_answers(answers([True, False]), answers([True, False])) == 0
    assert count_changed_answers(answers([True, False]), answers([True, True])) == 1
    with pytest.raises(ValueError, match="shorter"):
        count_changed_answers(answers([True, False]), answers([True]))


def test_prompts_have_names_that_people_use() -> None:
    assert [name_prompt(n) for n in (0, 1, 4)] == [ZERO_SHOT, "1 example", "4 examples"]
