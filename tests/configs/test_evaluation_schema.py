from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from configs.evaluation_schema import EvaluationConfig, HostedBaseline, RecordedBaseline
from configs.schema import RunConfig
from tests.configs.minimal import MINIMAL

PRICE = {"input_per_million": 1, "output_per_million": 2}
JUDGE = {"base_url": "http://127.0.0.1:1/v1", "model": "judge"}
SOURCE = {"kind": "icd10_chapters"}


def evaluation(**settings: Any) -> EvaluationConfig:  # noqa: ANN401
    return EvaluationConfig.model_validate({"task": "own rows", **settings})


def further(name: str = "further", **settings: object) -> dict[str, object]:
    return {"name": name, "source": SOURCE, **settings}


def hosted(**settings: object) -> dict[str, object]:
    return {"kind": "hosted", **settings}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tasks": [further("own rows")]}, "two are called 'own rows'"),
        ({"tasks": [further("a"), further("b"), further("a")]}, "two are called 'a'"),
        ({"num_epochs": 2}, "num_epochs averages .* temperature above 0"),
        ({"metric": "rubric", "rubric": "Is it kind?"}, "evaluation: metric rubric needs .*judge"),
        ({"metric": "pairwise"}, "evaluation: metric pairwise needs evaluation.judge"),
        ({"metric": "rubric", "judge": JUDGE}, "evaluation: metric rubric needs `rubric`"),
        ({"metric": "json_schema"}, "evaluation: metric json_schema needs `json_schema`"),
        ({"metric": "checks"}, "metric checks is that of the guard sets"),
        ({"tasks": [further(metric="pairwise")]}, "tasks: further: metric pairwise needs"),
        ({"tasks": [further(metric="rubric")], "judge": JUDGE}, "tasks: further: .* `rubric`"),
        ({"tasks": [further(metric="json_schema")]}, "tasks: further: .* `json_schema`"),
        ({"tasks": [further(metric="checks")]}, "tasks: further: metric checks"),
        ({"baseline": hosted(max_cost=1)}, "max_cost is held against a preview.*price"),
        ({"baseline": hosted(max_cost=0, price=PRICE)}, "greater than 0"),
        ({"baseline": hosted(base_url="ftp://example.org")}, "pattern"),
        ({"baseline": hosted(requests_per_minute=0)}, "greater than 0"),
        ({"baseline": {"kind": "recorded"}}, "path\n.*required"),
        ({"baseline": {"kind": "other"}}, "'base', 'hosted', 'recorded'"),
        ({"judge": {"model": "m"}}, "base_url\n.*required"),
        ({"judge": JUDGE | {"base_url": "judge:1"}}, "pattern"),
        ({"guard": {"sets": ["poetry"]}}, "'knowledge'"),
        ({"guard": {"margin": 0}}, "greater than 0"),
        ({"guard": {"margin": 1}}, "less than 1"),
        ({"guard": {"num_samples": 1}}, "greater than or equal to 2"),
        ({"equivalence_margin": 0}, "greater than 0"),
        ({"confidence": 0.5}, "greater than 0.5"),
        ({"confidence": 95}, "less than 1"),
        ({"promote_on": []}, "at least 1 item"),
        ({"promote_on": ["best"]}, "'better'"),
        ({"num_samples": 1}, "greater than or equal to 2"),
        ({"num_resamples": 100}, "greater than or equal to 1000"),
        ({"tasks": [further(num_samples=1)]}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_the_reason(
    settings: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValidationError, match=f"(?s){problem}"):
        evaluation(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_epochs": 3, "temperature": 0.7},
        {"num_epochs": 1, "temperature": 0.0},
        {"metric": "rubric", "rubric": "Is it kind?", "judge": JUDGE},
        {"metric": "pairwise", "judge": JUDGE},
        {"metric": "json_schema", "json_schema": {}},
        {"metric": "json_schema", "json_schema": {"type": "object"}},
        {"tasks": [further("a"), further("b", metric="pairwise")], "judge": JUDGE},
        {"baseline": hosted(max_cost=0.5, price=PRICE)},
        {"baseline": hosted(price=PRICE)},
        {"guard": {"sets": []}},
    ],
)
def test_what_goes_together_is_taken(settings: dict[str, object]) -> None:
    assert evaluation(**settings).task == "own rows"


def test_the_hosted_model_is_oxens_where_nothing_else_is_said() -> None:
    baseline = evaluation(baseline=hosted()).baseline
    assert isinstance(baseline, HostedBaseline)
    assert (baseline.base_url, baseline.model, baseline.api_key_env) == (
        "https://hub.oxen.ai/api/ai",
        "mistral-small-2503",
        "OXEN_API_KEY",
    )
    assert (baseline.price, baseline.max_cost, baseline.requests_per_minute) == (None, None, None)
    recorded = evaluation(baseline={"kind": "recorded", "path": "/r.jsonl"}).baseline
    assert isinstance(recorded, RecordedBaseline)
    assert evaluation().baseline.kind == "base"


def test_further_tasks_decide_unless_they_only_inform() -> None:
    first, second = evaluation(tasks=[further("a"), further("b", primary=False)]).tasks
    assert (first.primary, second.primary) == (True, False)
    assert evaluation().promote_on == ["better"]


@pytest.mark.parametrize(
    ("baseline", "sets", "needed"),
    [
        ({"kind": "base"}, [], True),
        ({"kind": "hosted"}, [], False),
        ({"kind": "hosted"}, ["formats"], True),
        ({"kind": "recorded", "path": "/r.jsonl"}, [], False),
    ],
)
def test_the_base_is_asked_as_baseline_or_for_the_guard_sets(
    baseline: dict[str, object], sets: list[str], needed: bool
) -> None:
    written = YAML(typ="safe").load(MINIMAL)
    written["evaluation"] |= {"baseline": baseline, "guard": {"sets": sets}}
    assert RunConfig.model_validate(written).needs_base is needed
