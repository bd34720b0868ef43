"""What `comparison.json` tells beside the verdict: counts, tokens, seconds, costs, as rounded."""

import json
from dataclasses import replace
from typing import Any

import pytest

from configs.evaluation_schema import Price
from data.conversation import ToolCall
from evals.build_result import build_result
from evals.preflight import Check
from evals.results import JudgeResult, NotAsked
from evals.targets import Target
from tests.evals.compared import compare, gathered, guard, with_variant
from tests.evals.report.factories import build_config, build_evidence

# Beside the verdict.


def test_answers_that_differ_are_counted_between_the_same_prompts() -> None:
    evidence = build_evidence("a", num=10, right=(0, 0))
    [task] = compare(evidence)["tasks"]
    assert task["num_answers_changed"] == 0
    texts = [replace(one, text="new") if n < 3 else one for n, one in enumerate(evidence.variant)]
    shown = [replace(one, text="other") for one in evidence.baseline["4 examples"]]
    evidence = replace(evidence, baseline={**evidence.baseline, "4 examples": shown})
    [task] = compare(with_variant(evidence, texts))["tasks"]
    assert task["num_answers_changed"] == 3


def call(id: str, arguments: str) -> tuple[ToolCall, ...]:
    return (ToolCall(id=id, type="function", function={"name": "f", "arguments": arguments}),)


def test_a_call_differs_by_what_it_says_and_not_by_its_made_up_id() -> None:
    evidence = guard("calls", (40, 40))
    plain = evidence.baseline["zero-shot"]
    evidence = replace(
        evidence,
        baseline={"zero-shot": [replace(one, tool_calls=call("x", "{}")) for one in plain]},
        variant=[
            replace(one, tool_calls=call(f"y{n}", "{}" if n else '{"a": 1}'))
            for n, one in enumerate(evidence.variant)
        ],
    )
    task = compare(build_evidence("a"), evidence)["tasks"][1]
    assert task["num_answers_changed"] == 1


def test_cut_answers_tokens_and_seconds_are_told() -> None:
    evidence = build_evidence("a", num=10)
    changed = [
        replace(
            one,
            stop_reason="max_tokens" if n < 2 else "stop",
            seconds=None if n == 0 else float(n),
            prompt_tokens=None if n == 9 else 80,
        )
        for n, one in enumerate(evidence.variant)
    ]
    [task] = compare(with_variant(evidence, changed))["tasks"]
    ours = task["variant"]
    assert (ours["num_cut"], task["baseline"]["num_cut"]) == (2, 0)
    # One unknown makes a sum unknown, not smaller.
    assert (ours["prompt_tokens"], ours["completion_tokens"]) == (None, 90)
    assert ours["median_seconds"] == 5.0
    assert ours["p95_seconds"] == pytest.approx(8.6)


def test_a_side_that_tells_no_seconds_has_none() -> None:
    evidence = build_evidence("a")
    quiet = [replace(one, seconds=None) for one in evidence.variant]
    [task] = compare(with_variant(evidence, quiet))["tasks"]
    assert (task["variant"]["median_seconds"], task["variant"]["p95_seconds"]) == (None, None)


def test_what_was_not_asked_and_how_the_judge_worked_is_passed_on() -> None:
    found = gathered([build_evidence("a"), build_evidence("b", role="exploratory")])
    judged = JudgeResult(model="j", flip_rate=0.1, length_difference=0.2, num_unreadable=1)
    found.judged["b"] = judged
    found.not_asked.append(NotAsked(name="c", why="no tools"))
    result = build_result(found, config=build_config())
    first, second = (task["judge"] for task in result["tasks"])
    assert first is None
    assert second is not None
    assert judged.items() <= second.items()
    # Who judged, and whether to trust it, is told beside the figures.
    assert "j" in second["facts"][0]
    assert second["warnings"] == []
    assert result["not_asked"] == [{"name": "c", "why": "no tools"}]
    assert result["run"] == result["tasks"][0]["variant"]["name"] == "demo-medical"
    assert result["tasks"][0]["metric_title"] == "Match"


# Cost.


def test_all_answers_are_paid_for_and_those_that_count_give_the_price_of_a_request() -> None:
    own, further = build_evidence("a", num=10), build_evidence("b", num=10, role="exploratory")
    dear: dict[str, Any] = {"prompt_tokens": 100_000, "completion_tokens": 100_000, "seconds": 99.0}
    outside = guard("g", (40, 40))
    outside = replace(outside, variant=[replace(one, **dear) for one in outside.variant])
    evidence = []
    for one in (own, further):
        plain, shown = one.baseline.values()
        shown = [replace(answer, score=1.0, prompt_tokens=480) for answer in shown]
        evidence.append(replace(one, baseline={"zero-shot": plain, "4 examples": shown}))
    found = gathered([*evidence, outside])
    found.answers = {
        "base": {"g": outside.baseline["zero-shot"]},
        "variant": {one.task.name: one.variant for one in [*evidence, outside]},
        "baseline": {
            f"{one.task.name} {prompt}": answers
            for one in evidence
            for prompt, answers in one.baseline.items()
        },
    }
    cost = build_result(
        found,
        config=build_config(own_cost={"per_month": 90.0, "currency": "EUR"}),
        price=Price(input_per_million=1.0, output_per_million=2.0, currency="EUR"),
    )["cost"]
    theirs, ours = cost["sides"]
    assert (theirs["name"], ours["name"]) == ("mistral-small-2503", "demo-medical")
    assert (theirs["num_requests"], ours["num_requests"]) == (40, 60)
    assert theirs["prompt_tokens"] == 20 * 80 + 20 * 480
    assert theirs["cost"] == pytest.approx((20 * 80 + 20 * 480 + 40 * 9 * 2) / 1e6)
    assert theirs["per_request"] == pytest.approx((480 + 18) / 1e6)
    assert (ours["cost"], ours["per_request"], ours["currency"]) == (None, None, None)
    assert ours["median_seconds"] == 0.4
    assert (cost["own_per_month"], cost["break_even_requests"]) == (90.0, 180_723)


def test_where_the_base_is_the_baseline_its_answers_are_counted() -> None:
    evidence = build_evidence("a", num=10)
    found = gathered([evidence])
    found.answers = {
        "base": {**evidence.baseline, "preflight": evidence.variant},
        "variant": {"a": evidence.variant},
    }
    sides = build_result(found, config=build_config())["cost"]["sides"]
    assert [side["num_requests"] for side in sides] == [30, 10]


# The file.


def test_figures_have_six_digits_and_no_negative_zero() -> None:
    evidence = build_evidence("a", num=30, right=(10, 20), num_known=27)
    result = compare(evidence, build_evidence("b", num=200, right=(0, 90)))
    text = json.dumps(result)
    assert json.loads(text) == result
    assert "-0.0," not in text
    assert (result["tasks"][0]["variant"]["score"], result["tasks"][0]["delta"]) == (
        0.666667,
        0.333333,
    )
    assert result["tasks"][1]["p_value"] == 1.61559e-27
    for task in result["tasks"]:
        for bound in (*task["interval"], task["standard_error"]):
            assert bound == round(bound, 6)


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    evidence = build_evidence("a", num=10, metric="token_f1", num_examples=0)
    slightly = [replace(one, score=one.score - 1e-9) for one in evidence.baseline["zero-shot"]]
    [task] = compare(with_variant(evidence, slightly))["tasks"]
    assert str(task["delta"]) == "0.0"


def test_only_the_answers_decide_what_stands_in_the_file() -> None:
    evidence = [build_evidence("a", right=(10, 21)), guard("g", (30, 28))]
    first = gathered(evidence)
    second = gathered(evidence)
    second.checks.append(Check("address", True, "answers, here in 0.3 s"))
    second.targets["variant"] = Target("v", "http://127.0.0.1:51234/v1", "v")
    config = build_config()
    files = [json.dumps(build_result(found, config=config)) for found in (first, second)]
    assert files[0] == files[1]
    other = gathered([build_evidence("a", right=(10, 22)), evidence[1]])
    assert json.dumps(build_result(other, config=config)) != files[0]
