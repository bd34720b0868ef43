"""Preference data through the whole stage, in the two forms that TRL reads."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.data.preparing import SIDES, PrepareRows

Row = dict[str, Any]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def texts(question: str, preferred: str, rejected: str) -> Row:
    return {"prompt": question, "chosen": preferred, "rejected": rejected}


def turns(question: str, preferred: str, rejected: str) -> Row:
    return {
        "prompt": [user(question)],
        "chosen": [assistant(preferred)],
        "rejected": [assistant(rejected)],
    }


def conversations(question: str, preferred: str, rejected: str) -> Row:
    return {
        "chosen": [user(question), assistant(preferred)],
        "rejected": [user(question), assistant(rejected)],
    }


FORMS = [texts, turns, conversations]


@pytest.mark.parametrize("form", FORMS)
def test_pairs_are_written_with_the_tokens_of_both_answers(
    run_prepare: PrepareRows, form: Callable[[str, str, str], Row]
) -> None:
    lines = [form(f"Which number is {n}?", f"It is {n}.", "Who knows?") for n in range(40)]
    facts = run_prepare(lines, system_prompt="Count.")
    assert sum(facts["num_rows"].values()) == 40
    assert run_prepare.facts()["num_preference_pairs"] == 40
    for row in run_prepare.all_rows():
        assert json.loads(row["rejected"]) == assistant("Who knows?")
        start = row["assistant_mask"].index(1)
        assert row["rejected_mask"].index(1) == start
        assert row["input_ids"][:start] == row["rejected_ids"][:start]
        assert row["input_ids"][start:] != row["rejected_ids"][start:]
        assert row["messages"][0] == {"role": "system", "content": "Count."}


def test_pairs_are_accounted_for(run_prepare: PrepareRows) -> None:
    lines = [texts(f"Which number is {n}?", f"It is {n}.", "Who knows?") for n in range(30)]
    lines.append(texts("Which number is long?", "That one.", "x" * 600))
    lines.append(texts("Which number is the same?", "That one.", "That one. "))
    facts = run_prepare(lines, max_length=200)
    assert run_prepare.rejects() == [
        {
            "where": "rows.jsonl:32",
            "reason": "the preferred and the rejected answer are the same",
        },
        {
            "where": "rows.jsonl:31",
            "reason": "a preference pair of more than 200 tokens",
        },
    ]
    assert facts["num_read"] == 32 == sum(facts["num_rows"].values()) + facts["num_rejects"]


def test_rows_without_a_rejected_answer_stand_beside_pairs(run_prepare: PrepareRows) -> None:
    run_prepare([conversations(f"Which number is {n}?", f"It is {n}.", "No.") for n in range(30)])
    pairs = {side: len(run_prepare.rows(side)) for side in SIDES}
    run_prepare(
        [{"messages": [user(f"Which number is {n}?"), assistant(f"It is {n}.")]} for n in range(30)]
    )
    assert {side: len(run_prepare.rows(side)) for side in SIDES} == pairs
    assert {row["rejected_ids"] for row in run_prepare.all_rows()} == {None}
