from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from configs.evaluation_schema import JudgeConfig, MetricName
from evals.asking import ask
from evals.evidence import TaskEvidence
from evals.judge.judging import (
    JudgedEvidence,
    apply_judgements,
    build_judge_tasks,
    judge_target,
    length_difference,
)
from tests.evals.judge.judges import (
    Messages,
    first_judge,
    grading_judge,
    longer_judge,
    make_answers,
    make_task,
    rubbish_judge,
    sound_judge,
)
from tests.evals.loopback_host import LoopbackHost, run_host

Judge = Callable[[str, Messages], str]

ZERO_SHOT = ["1", "no", "no", "longer and wrong", "same"]
WITH_EXAMPLES = ["1", "2", "no", "4", "same"]
VARIANT = ["1 it is", "2", "3", "none", "same"]


def make_evidence(metric: MetricName) -> TaskEvidence:
    return TaskEvidence(
        task=make_task(5, metric=metric, rubric="Gives the sum.", reference="A number."),
        baseline_name="the hosted model",
        baseline_model="big-70b",
        baseline={
            "zero-shot": make_answers(ZERO_SHOT),
            "2 examples": make_answers(WITH_EXAMPLES),
        },
        variant=make_answers(VARIANT),
    )


def judge_evidence(host: LoopbackHost, evidence: TaskEvidence, folder: Path) -> JudgedEvidence:
    config = JudgeConfig(base_url=host.base_url, model="judge-7b", max_tokens=64)
    target = judge_target(config, api_key=None)
    tasks = build_judge_tasks(evidence, config)
    return apply_judgements(evidence, ask(target, tasks, log_dir=folder, max_connections=4), config)


def scores_of(judged: JudgedEvidence) -> dict[str, list[float]]:
    sides = {**judged.evidence.baseline, "variant": judged.evidence.variant}
    return {name: [answer.score for answer in answers] for name, answers in sides.items()}


def test_pairs_are_judged_against_every_prompt_and_asked_once(tmp_path: Path) -> None:
    evidence = make_evidence("pairwise")
    with run_host(LoopbackHost(reply=sound_judge)) as host:
        judged = judge_evidence(host, evidence, tmp_path)
        num_requests = len(host.requests)
        again = judge_evidence(host, evidence, tmp_path)
    assert scores_of(judged) == {
        "zero-shot": [0.5, 0.0, 0.0, 0.5, 0.5],
        "2 examples": [0.5, 0.5, 0.0, 1.0, 0.5],
        # Against the better prompt, which is the one with examples.
        "variant": [0.5, 0.5, 1.0, 0.0, 0.5],
    }
    lengths = sum(map(len, VARIANT)) / sum(map(len, WITH_EXAMPLES)) - 1
    assert judged.result == {
        "model": "judge-7b",
        "flip_rate": 0.0,
        "length_difference": pytest.approx(lengths),
        "num_unreadable": 0,
    }
    # Four pairs, of which two are the same with both prompts, and two more; both orders each.
    assert num_requests == 2 * 5
    assert again == judged
    assert len(host.requests) == num_requests
    for body in host.requests:
        assert (body["temperature"], body["max_tokens"]) == (0.0, 64)
        assert [turn["role"] for turn in body["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("judge", "variant", "flip_rate", "num_unreadable"),
    [
        (first_judge, [0.5] * 5, 1.0, 0),
        (rubbish_judge, [0.5] * 5, None, 6),
        (longer_judge, [1.0, 0.5, 0.0, 1.0, 0.5], 0.0, 0),
    ],
)
def test_a_bad_judge_is_told_by_its_figures(
    judge: Judge,
    variant: list[float],
    flip_rate: float | None,
    num_unreadable: int,
    tmp_path: Path,
) -> None:
    evidence = make_evidence("pairwise")
    evidence = replace(
        evidence, baseline={"zero-shot": make_answers(["1", "2", "nay", "4", "same"])}
    )
    with run_host(LoopbackHost(reply=judge)) as host:
        judged = judge_evidence(host, evidence, tmp_path)
    assert scores_of(judged)["variant"] == variant
    assert scores_of(judged)["zero-shot"] == [1 - score for score in variant]
    assert judged.result["flip_rate"] == flip_rate
    assert judged.result["num_unreadable"] == num_unreadable


def test_each_side_is_graded_by_itself(tmp_path: Path) -> None:
    evidence = make_evidence("rubric")
    with run_host(LoopbackHost(reply=grading_judge)) as host:
        judged = judge_evidence(host, evidence, tmp_path)
    assert scores_of(judged) == {
        "zero-shot": [1.0, 0.25, 0.25, 0.25, 0.25],
        "2 examples": [1.0, 1.0, 0.25, 1.0, 0.25],
        "variant": [1.0, 1.0, 1.0, 0.25, 0.25],
    }
    assert judged.result["flip_rate"] is None
    answers = {(n, side[n]) for side in (ZERO_SHOT, WITH_EXAMPLES, VARIANT) for n in range(5)}
    assert len(host.requests) == len(answers)


def test_nobody_is_asked_where_all_answers_are_the_same() -> None:
    evidence = replace(make_evidence("pairwise"), baseline={"zero-shot": make_answers(VARIANT)})
    config = JudgeConfig(base_url="http://127.0.0.1:9/v1", model="judge-7b")
    assert build_judge_tasks(evidence, config) == []
    judged = apply_judgements(evidence, {}, config)
    assert scores_of(judged)["variant"] == [0.5] * 5
    assert judged.result == {
        "model": "judge-7b",
        "flip_rate": None,
        "length_difference": 0.0,
        "num_unreadable": 0,
    }


def test_a_metric_of_a_program_is_never_judged() -> None:
    config = JudgeConfig(base_url="http://127.0.0.1:9/v1", model="judge-7b")
    with pytest.raises(AssertionError, match="exact_match needs no judge"):
        build_judge_tasks(make_evidence("exact_match"), config)


def test_length_is_compared_by_means() -> None:
    assert length_difference(make_answers(["aa", "bb"]), make_answers(["aaaa", "bb"])) == 0.5
    assert length_difference(make_answers([""]), make_answers([""])) == 0.0
    assert length_difference(make_answers([""]), make_answers(["abc"])) == 2.0
    assert length_difference(make_answers(["abc"]), make_answers([""])) == -1.0
