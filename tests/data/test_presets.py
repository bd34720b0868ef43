"""Each public data set's shape, on hand-made rows with its own columns and types."""

import typing
from pathlib import Path
from typing import Any

import datasets
import pytest

from configs.data_schema import MultipleChoiceShape, PresetName, PresetSource
from configs.errors import UserError
from data.conversation import Conversation
from data.load_source import check_test_ids
from data.presets import PRESETS, PUBMEDQA_TEST_IDS, Preset, find_preset
from data.sources.hub import open_hub
from data.sources.table import read_test_ids
from tests.data.sources.reading import read_all

pytestmark = pytest.mark.usefixtures("own_datasets_cache")

LABELS = datasets.ClassLabel
TEXT = datasets.Value("string")
LETTER_LINE = "Answer with the letter."


def preset(name: str, subset: str | None = None) -> Preset:
    config = PresetSource.model_validate({"kind": "preset", "name": name, "subset": subset})
    return find_preset(config)


def read_as(
    found: Preset,
    folder: Path,
    row: dict[str, Any],
    features: dict[str, Any] | None = None,
    **more: Any,  # noqa: ANN401
) -> list[Conversation]:
    """The conversation of `row` in every split that the preset reads, from a local copy of it."""
    source = found.source.model_copy(update={"id": str(folder), "subset": None, "revision": None})
    rows = datasets.Dataset.from_list(
        [row | more], features=datasets.Features(features) if features else None
    )
    splits = [source.train_split, source.validation_split, source.test_split]
    for split in filter(None, splits):
        pattern = found.files.get(split, f"{split}.parquet")
        file = folder / pattern.replace("*", "0000")
        file.parent.mkdir(parents=True, exist_ok=True)
        if pattern.endswith(".csv"):
            rows.to_csv(file)
        elif pattern.endswith(".json"):
            rows.to_json(file)
        else:
            rows.to_parquet(file)
    return read_all(open_hub(source, files=found.files)).conversations


def texts(rows: list[Conversation]) -> tuple[str, str]:
    """Question and answer, which are the same on every side."""
    told = {tuple(str(turn["content"]) for turn in row.messages) for row in rows}
    ((question, answer),) = told
    return question, answer


def test_every_name_of_the_configuration_is_a_preset() -> None:
    names = set(typing.get_args(PresetName))
    subsets = {"legalbench": "hearsay", "lex_glue": "ledgar", "mmlu": "professional_law"}
    assert set(PRESETS) | set(subsets) == names
    for name in names:
        subset = subsets.get(name)
        found = preset(name, subset)
        assert found.source.attribution
        assert found.source.licence != "not stated"
        assert found.size
        assert found.checked
        # Where letters are expected, an answer that says more than the letter is read.
        lettered = isinstance(found.source.shape, MultipleChoiceShape)
        assert (found.metric == "choice") == lettered


def test_the_official_test_ids_of_pubmedqa_are_shipped() -> None:
    ids = read_test_ids(PUBMEDQA_TEST_IDS)
    assert len(ids) == 500
    assert all(id.isdecimal() for id in ids)


def test_pubmedqa(tmp_path: Path) -> None:
    listed = min(read_test_ids(PUBMEDQA_TEST_IDS))
    row = {
        "pubid": int(listed),
        "question": "Do mitochondria play a role?",
        "context": {
            "contexts": ["Cells die.", "We looked."],
            "labels": ["BACKGROUND", "RESULTS"],
            "meshes": ["Apoptosis"],
            "reasoning_required_pred": ["y", "e", "s"],
            "reasoning_free_pred": ["y", "e", "s"],
        },
        "long_answer": "Results depicted mitochondria.",
        "final_decision": "yes",
    }
    rows = read_as(preset("pubmedqa"), tmp_path, row)
    assert texts(rows) == (
        "Cells die.\n\nWe looked.\n\nDo mitochondria play a role?\n\nAnswer with yes, no or maybe.",
        "yes",
    )
    assert [(found.id, found.side) for found in rows] == [(listed, "test")]


def test_mmlu(tmp_path: Path) -> None:
    row = {
        "question": "Which drug?",
        "subject": "professional_medicine",
        "choices": ["Aspirin", "Codeine", "Digoxin", "Heparin"],
        "answer": 2,
    }
    features = {
        "question": TEXT,
        "subject": TEXT,
        "choices": datasets.List(TEXT),
        "answer": LABELS(names=list("ABCD")),
    }
    # Named in the card, as the data set's own does; else a file called dev is taken for validation.
    splits = ["dev", "validation", "test"]
    card = "configs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: {split}.parquet\n" for split in splits
    )
    (tmp_path / "README.md").write_text(f"---\n{card}---\n")
    rows = read_as(preset("mmlu", "professional_medicine"), tmp_path, row, features)
    assert texts(rows) == (
        "Which drug?\n\nA) Aspirin\nB) Codeine\nC) Digoxin\nD) Heparin\n\n" + LETTER_LINE,
        "C",
    )
    assert [found.side for found in rows] == ["train", "validation", "test"]


def test_medqa(tmp_path: Path) -> None:
    row = {
        "question": "Best treatment?",
        "answer": "Nitrofurantoin",
        "options": {
            "A": "Ampicillin",
            "B": "Ceftriaxone",
            "C": "Doxycycline",
            "D": "Nitrofurantoin",
        },
        "meta_info": "step2&3",
        "answer_idx": "D",
        "metamap_phrases": ["burning"],
    }
    rows = read_as(preset("medqa"), tmp_path, row)
    assert texts(rows) == (
        "Best treatment?\n\nA) Ampicillin\nB) Ceftriaxone\nC) Doxycycline\nD) Nitrofurantoin\n\n"
        + LETTER_LINE,
        "D",
    )
    assert [found.side for found in rows] == ["train", "test"]


def test_medmcqa(tmp_path: Path) -> None:
    row = {
        "id": "e9ad821a",
        "question": "Urethral obstruction leads to",
        "opa": "Hyperplasia",
        "opb": "Hyperophy",
        "opc": "Atrophy",
        "opd": "Dyplasia",
        "cop": 2,
        "choice_type": "single",
        "exp": "Atrophy follows.",
        "subject_name": "Anatomy",
        "topic_name": None,
    }
    features = {key: TEXT for key in row} | {"cop": LABELS(names=["a", "b", "c", "d"])}
    rows = read_as(preset("medmcqa"), tmp_path, row, features)
    assert texts(rows) == (
        "Urethral obstruction leads to\n\nA) Hyperplasia\nB) Hyperophy\nC) Atrophy\nD) Dyplasia\n\n"
        + LETTER_LINE,
        "C",
    )
    # The official validation split is the one that is tested on.
    assert rows[1].where == f"{tmp_path}[validation][0]"
    assert [(found.id, found.side) for found in rows] == [
        ("e9ad821a", "train"),
        ("e9ad821a", "test"),
    ]


@pytest.mark.parametrize(("name", "subset"), [("casehold", None), ("lex_glue", "case_hold")])
def test_casehold(name: str, subset: str | None, tmp_path: Path) -> None:
    row = {
        "context": "See Smith v. Jones (<HOLDING>).",
        "endings": [f"holding that {n}" for n in ("one", "two", "three", "four", "five")],
        "label": 3,
    }
    features = {
        "context": TEXT,
        "endings": datasets.List(TEXT),
        "label": LABELS(names=list("01234")),
    }
    rows = read_as(preset(name, subset), tmp_path, row, features)
    assert texts(rows) == (
        "See Smith v. Jones (<HOLDING>).\n\nA) holding that one\nB) holding that two\n"
        "C) holding that three\nD) holding that four\nE) holding that five\n\n"
        "Which holding belongs in the place of <HOLDING>? Answer with the letter.",
        "D",
    )
    assert [found.side for found in rows] == ["train", "validation", "test"]


def test_lex_glue_names_its_classes(tmp_path: Path) -> None:
    features = {"text": TEXT, "label": LABELS(names=["Adjustments", "Agreements"])}
    rows = read_as(
        preset("lex_glue", "ledgar"), tmp_path / "a", {"text": "x", "label": 1}, features
    )
    assert texts(rows)[1] == "Agreements"
    features = {
        "text": datasets.List(TEXT),
        "labels": datasets.List(LABELS(names=["2", "P1-1"])),
    }
    row = {"text": ["1. One.", "2. Two."], "labels": [0, 1]}
    question, answer = texts(read_as(preset("lex_glue", "ecthr_a"), tmp_path / "b", row, features))
    assert question.startswith("1. One.\n\n2. Two.\n\nWhich articles ")
    assert answer == "2, P1-1"
    features = {"text": TEXT, "labels": datasets.List(LABELS(names=["Arbitration"]))}
    row = {"text": "We are fair.", "labels": []}
    assert (
        texts(read_as(preset("lex_glue", "unfair_tos"), tmp_path / "c", row, features))[1] == "none"
    )


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (
            {"index": 0, "answer": "Yes", "text": "On the issue …", "slice": "s"},
            "Task: some task\n\nText: On the issue …",
        ),
        (
            {"index": 1, "answer": "No", "contract": "Terms.", "question": "May I?"},
            "Task: some task\n\nContract: Terms.\nQuestion: May I?",
        ),
        (
            {"index": 2, "answer": "1", "question": "Which?"}
            | {f"choice_{n}": f"holding {n}" for n in range(5)},
            "Task: some task\n\nQuestion: Which?\n0: holding 0\n1: holding 1\n2: holding 2\n"
            "3: holding 3\n4: holding 4",
        ),
    ],
)
def test_legalbench(row: dict[str, Any], question: str, tmp_path: Path) -> None:
    rows = read_as(preset("legalbench", "some_task"), tmp_path, row)
    assert texts(rows) == (question, row["answer"])
    assert rows[0].id == str(row["index"])


def test_cuad_keeps_clauses_that_are_absent(tmp_path: Path) -> None:
    row = {"id": "x__Parties", "title": "X", "context": "A contract.", "question": "Highlight …"}
    features = {key: TEXT for key in row} | {
        "answers": {
            "text": datasets.List(TEXT),
            "answer_start": datasets.List(datasets.Value("int32")),
        }
    }
    spans = {"text": ["Acme", "ACME", "Acme"], "answer_start": [1, 5, 9]}
    rows = read_as(preset("cuad_qa"), tmp_path, row, features, answers=spans)
    question, answer = texts(rows)
    assert question.startswith(
        "A contract.\n\nHighlight …\n\nAnswer with the words of the contract"
    )
    assert answer == "Acme\nACME"
    assert [(found.side, found.group) for found in rows] == [("train", "X"), ("test", "X")]
    absent: dict[str, Any] = {"text": [], "answer_start": []}
    again = read_as(preset("cuad_qa"), tmp_path, row, features, answers=absent)
    assert texts(again)[1] == "none"


@pytest.mark.parametrize("context", ["An ordinance of City.", None])
def test_barexam_qa(context: str | None, tmp_path: Path) -> None:
    row = {
        "idx": "mbe_46",
        "dataset": "mbe",
        "prompt_id": "p1",
        "prompt": context,
        "question": "Ned will",
        "choice_a": "recover",
        "choice_b": "recover, too",
        "choice_c": "not recover",
        "choice_d": "not recover either",
        "answer": "C",
        "gold_passage": "…",
        "gold_idx": "mbe_2606",
    }
    rows = read_as(preset("barexam_qa"), tmp_path, row)
    start = f"{context}\n\n" if context else ""
    assert texts(rows) == (
        f"{start}Ned will\n\nA) recover\nB) recover, too\nC) not recover\nD) not recover either\n\n"
        + LETTER_LINE,
        "C",
    )
    assert [(found.id, found.group) for found in rows] == [("mbe_46", "p1")] * 3


def test_techqa(tmp_path: Path) -> None:
    row = {
        "id": "TRAIN_Q000",
        "question": "How are variables set?",
        "answer": "Edit the file.",
        "is_impossible": False,
        "contexts": [{"filename": "swg1.txt", "text": "A note."}],
    }
    rows = read_as(preset("techqa"), tmp_path, row)
    assert texts(rows) == (
        "A note.\n\nHow are variables set?\n\nAnswer from the text above.",
        "Edit the file.",
    )
    assert rows[0].id == "TRAIN_Q000"
    # Whatever stands in place of an answer that there is none of is not learned.
    found = preset("techqa")
    with pytest.raises(UserError, match=r"turn 2 \(assistant\) is empty"):
        read_as(found, tmp_path, row | {"is_impossible": True, "answer": "-"})


def test_nl2bash(tmp_path: Path) -> None:
    row = {"nl": "Count lines in a.txt", "bash": "wc -l < a.txt | awk '{print $1}'"}
    rows = read_as(preset("nl2bash"), tmp_path, row)
    assert texts(rows) == (
        "Count lines in a.txt\n\nAnswer with one Bash command and nothing else.",
        "wc -l < a.txt | awk '{print $1}'",
    )
    assert [found.side for found in rows] == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("name", "subset", "what"),
    [
        ("legalbench", None, "the preset legalbench needs the name of a task"),
        ("legalbench", "{{ x }}", "the preset legalbench needs the name of a task"),
        ("lex_glue", "eurlex", "the task 'eurlex' of LexGLUE is not offered"),
        ("medqa", "x", "the preset medqa has no subsets"),
    ],
)
def test_subsets_that_cannot_be(name: str, subset: str | None, what: str) -> None:
    with pytest.raises(UserError) as caught:
        preset(name, subset)
    assert caught.value.what == what
    assert caught.value.where == "data.source.subset"


def test_ids_that_are_not_met_are_told(tmp_path: Path) -> None:
    listed = sorted(read_test_ids(PUBMEDQA_TEST_IDS))
    row = {"question": "?", "context": {"contexts": ["x"]}, "final_decision": "no"}
    found = preset("pubmedqa")
    rows = datasets.Dataset.from_list([row | {"pubid": int(id)} for id in [*listed[:499], "1"]])
    rows.to_parquet(tmp_path / "train.parquet")
    local = {"id": str(tmp_path), "subset": None, "revision": None}
    source = open_hub(found.source.model_copy(update=local))
    tested = [row.id for row in read_all(source).conversations if row.side == "test"]
    assert check_test_ids(source, tested) == listed[499:]
    with pytest.raises(UserError, match="none of the 500 listed test ids is that of a row"):
        check_test_ids(source, [])
