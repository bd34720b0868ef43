from dataclasses import replace

import pytest

from data.conversation import ToolCall
from evals.evidence import TaskEvidence
from evals.report.samples import (
    MAX_CHARACTERS,
    SampleGroup,
    build_sample,
    group_samples,
)
from tests.evals.report import factories


def group(evidence: TaskEvidence) -> dict[str, SampleGroup]:
    return {one.outcome: one for one in group_samples(evidence, factories.build_task(evidence))}


def test_every_question_has_one_outcome() -> None:
    # 40 questions: the variant has the first 25 right, the baseline the last 20.
    groups = group(factories.build_evidence("one", right=(20, 25)))
    assert {name: len(one.pairs) for name, one in groups.items()} == {
        "won": 20,
        "lost": 15,
        "both_wrong": 0,
        "both_right": 5,
    }


def test_equal_scores_between_right_and_wrong_have_a_group_of_their_own() -> None:
    evidence = factories.build_evidence("one", num=4, right=(0, 4), num_examples=0)
    half = [replace(answer, score=0.5) for answer in evidence.variant]
    groups = group(replace(evidence, baseline={"zero-shot": half}, variant=half))
    assert len(groups["same"].pairs) == 4


def test_epochs_are_averaged_and_stay_with_their_question() -> None:
    evidence = factories.build_evidence("one", num=3, right=(0, 3), num_epochs=2, num_examples=0)
    ours = [
        replace(answer, score=0.0) if (answer.id, answer.epoch) == ("row/1", 2) else answer
        for answer in evidence.variant
    ]
    won = group(replace(evidence, variant=ours))["won"]
    assert [pair.variant_score for pair in won.pairs] == [1.0, 0.5, 1.0]
    assert build_sample(won.pairs[1]).num_epochs == 2


def test_answers_to_other_questions_are_a_fault() -> None:
    evidence = factories.build_evidence("one")
    with pytest.raises(AssertionError, match="not paired"):
        group(replace(evidence, variant=evidence.variant[::-1]))


def test_long_answers_are_cut_and_counted_and_calls_are_words() -> None:
    evidence = factories.build_evidence("one", num=2, right=(0, 2), num_examples=0)
    call: ToolCall = {
        "id": "1",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"term": "x"}'},
    }
    ours = [
        replace(evidence.variant[0], text="x" * (MAX_CHARACTERS + 7)),
        replace(evidence.variant[1], text="", tool_calls=(call,)),
    ]
    won = group(replace(evidence, variant=ours))["won"]
    first, second = (build_sample(pair).variant for pair in won.pairs)
    assert first.num_left_out == 7
    assert "".join(piece.text for piece in second.pieces) == 'calls look_up({"term": "x"})'
