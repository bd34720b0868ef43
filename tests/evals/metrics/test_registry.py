from typing import get_args

import pytest

from configs.evaluation_schema import MetricName
from evals.metrics.registry import METRICS, find_metric
from evals.metrics.score import Reply
from tests.evals.metrics.questions import call_of, question_of

NAMES: tuple[MetricName, ...] = get_args(MetricName)
CHECKS = [{"kind": "json_object", "keys": []}]
UNICODE = "\u202eءـ\U0001f468\u200d\U0001f469\x00\ud7ff ﷽ ½"


def test_every_metric_that_a_configuration_may_name_is_there() -> None:
    assert set(METRICS) == set(NAMES)
    for name in NAMES:
        assert callable(find_metric(name))


def test_every_metric_is_told_in_one_sentence() -> None:
    for facts in METRICS.values():
        assert facts.description.count(".") == 1
        assert facts.description.endswith(".")
    assert len({facts.title for facts in METRICS.values()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", " \n", UNICODE, "**", "```", "a" * 100_000, "a\n" * 50_000])
def test_every_metric_scores_whatever_a_model_may_answer(name: MetricName, text: str) -> None:
    question = question_of("B", json_schema={"type": "object"}, checks=CHECKS)
    for reply in (Reply(text), Reply(text, (call_of("f", text),))):
        score = find_metric(name)(reply, question)
        assert 0 <= score.value <= 1
        assert isinstance(score.label, str)
        if METRICS[name].is_binary:
            assert score.value in (0, 1)


@pytest.mark.parametrize("name", ["rubric", "pairwise"])
def test_judged_metrics_wait_for_the_judge(name: MetricName) -> None:
    score = find_metric(name)(Reply("B"), question_of("B"))
    assert (score.value, score.why) == (0, "judged later")
    assert METRICS[name].is_judged
