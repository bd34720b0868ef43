from typing import Any, cast

import pytest

from evals.judge.disclosure import JudgeStatement, describe_judge, model_family
from evals.results import TaskResult


def describe(*judged_models: str, num_samples: int = 100, **judge: object) -> JudgeStatement:
    result: dict[str, Any] = {
        "name": "letters",
        "num_samples": num_samples,
        "num_epochs": 1,
        "judge": {
            "model": "qwen3-32b",
            "flip_rate": 0.125,
            "length_difference": 0.104,
            "num_unreadable": 0,
            **judge,
        },
    }
    return describe_judge(cast("TaskResult", result), judged_models=judged_models)


def test_a_pairwise_judge_is_described() -> None:
    told = describe("mistral-small-2503", "SmolLM2-135M")
    assert told.facts == [
        "The judge was qwen3-32b; it compared both answers to each question in both orders, at "
        "temperature 0, and saw no model's name.",
        "Its verdict hung on the order in 12% of the pairs that it judged readably in both; these "
        "count as ties.",
        "The variant's answers are 10% longer than the baseline's.",
    ]
    assert told.warnings == []


def test_a_grading_judge_is_described() -> None:
    told = describe(flip_rate=None, length_difference=-0.001, num_unreadable=3)
    assert "graded each answer by the rubric, from 1 to 5" in told.facts[0]
    assert told.facts[1:] == [
        "The variant's answers are as long as the baseline's.",
        "3 of its replies held no verdict and count as 0.",
    ]


@pytest.mark.parametrize(
    ("judged", "warning"),
    [
        ("Qwen/Qwen3-32B", "judged its own answers"),
        ("qwen2.5-7b-instruct", "of the same family as qwen2.5-7b-instruct"),
        ("mistral-small-2503", None),
    ],
)
def test_a_judge_of_its_own_kind_is_warned_of(judged: str, warning: str | None) -> None:
    warnings = describe("other-1b", judged).warnings
    assert (len(warnings) == 1 and warning in warnings[0]) if warning else warnings == []


@pytest.mark.parametrize(
    ("found", "warning"),
    [
        ({"flip_rate": 0.3}, None),
        ({"flip_rate": 0.31}, "The order decided 31% of the pairs"),
        ({"length_difference": 0.25}, None),
        ({"length_difference": 0.4}, "40% longer than the baseline's: judges lean"),
        ({"length_difference": -0.4}, None),
        ({"num_unreadable": 10}, None),
        ({"num_unreadable": 11}, "11 of 200 judgements held no verdict"),
        # A rubric is read once a side, which makes as many.
        ({"num_unreadable": 11, "flip_rate": None}, "11 of 200 judgements held no verdict"),
    ],
)
def test_a_judge_that_works_badly_is_warned_of(found: dict[str, Any], warning: str | None) -> None:
    warnings = describe("mistral-small-2503", **found).warnings
    assert (len(warnings) == 1 and warning in warnings[0]) if warning else warnings == []


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistral"),
        ("ministral-8b", "mistral"),
        ("gpt-5.1", "openai"),
        ("o3-mini", "openai"),
        ("meta-llama/Llama-3.3-70B-Instruct", "meta"),
        ("gemma-3-27b-it", "google"),
        ("SmolLM2-135M-Instruct", "smollm"),
        ("deepseek-v3.2", "deepseek"),
        ("7b-own", "7b-own"),
    ],
)
def test_a_family_is_told_by_the_name(model: str, family: str) -> None:
    assert model_family(model) == family
