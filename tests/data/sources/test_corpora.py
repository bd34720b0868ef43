"""Real public data, as they are published: every row is read, or told why not."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.data_schema import FilesSource, ParallelLinesSource
from data.conversation import ReadRows, text_of
from data.load_source import check_test_ids, open_source
from tests.data.sources.reading import read_all

CORPORA = os.environ.get("TUNERY_CORPORA")
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not CORPORA, reason="TUNERY_CORPORA does not name the corpora's folder"),
]


def corpus(name: str) -> Path:
    return Path(CORPORA or "") / name


def files(**options: Any) -> FilesSource:  # noqa: ANN401
    return FilesSource.model_validate({"kind": "files"} | options)


def answers(rows: ReadRows) -> Counter[str]:
    return Counter(text_of(row.messages[-1]) for row in rows.conversations)


def test_pubmedqa_with_its_official_test_ids() -> None:
    shape = {
        "kind": "question_answer",
        "question": "QUESTION",
        "answer": "final_decision",
        "context": "CONTEXTS",
        "instruction": "Answer with yes, no or maybe.",
    }
    source = open_source(
        files(
            path=corpus("pubmedqa_pqal.json"),
            test_ids_path=corpus("pubmedqa_test_ids.json"),
            shape=shape,
        )
    )
    rows = read_all(source)
    assert rows.rejects == []
    assert Counter(row.side for row in rows.conversations) == {"train": 500, "test": 500}
    assert answers(rows) == {"yes": 552, "no": 338, "maybe": 110}
    tested = [row.id for row in rows.conversations if row.side == "test"]
    assert check_test_ids(source, tested) == []


def test_overruling() -> None:
    shape = {"kind": "question_answer", "question": "sentence1", "answer": "label"}
    rows = read_all(open_source(files(path=corpus("overruling.csv"), shape=shape)))
    assert (rows.num_read, rows.rejects) == (2400, [])
    assert set(answers(rows)) == {"0", "1"}


@pytest.mark.parametrize(
    ("subject", "counts"),
    [
        ("law", {"train": 5, "validation": 170, "test": 1534}),
        ("medicine", {"train": 5, "validation": 31, "test": 282}),
    ],
)
def test_mmlu_without_a_header_is_recognized_as_multiple_choice(
    subject: str, counts: dict[str, int]
) -> None:
    name = f"mmlu_professional_{subject}"
    source = open_source(
        files(
            path=corpus(f"{name}_dev.csv"),
            validation_path=corpus(f"{name}_val.csv"),
            test_path=corpus(f"{name}_test.csv"),
            columns=["question", "A", "B", "C", "D", "answer"],
        )
    )
    assert "shape multiple_choice (question: question, options: ['A', 'B', 'C', 'D']" in source.told
    rows = read_all(source)
    assert rows.rejects == []
    assert Counter(row.side for row in rows.conversations) == counts
    assert set(answers(rows)) <= set("ABCD")


def test_nl2bash() -> None:
    source = ParallelLinesSource(
        kind="parallel_lines",
        questions_path=corpus("nl2bash.nl"),
        answers_path=corpus("nl2bash.cm"),
    )
    rows = read_all(open_source(source))
    assert (rows.num_read, rows.rejects) == (12_607, [])
