import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.load import load_config
from configs.schema import HubDataSource
from data.conversation import Reject
from data.load_source import load_source

pytestmark = pytest.mark.usefixtures("own_datasets_cache")

CONFIGS = Path(__file__).parents[3] / "configs"
Rows = list[dict[str, Any]]
BuildSource = Callable[..., HubDataSource]


@pytest.fixture
def build_source(tmp_path: Path) -> BuildSource:
    def build(splits: dict[str, Rows], suffix: str = "jsonl", **options: object) -> HubDataSource:
        folder = tmp_path / "rows"
        folder.mkdir(exist_ok=True)
        for name, rows in splits.items():
            file = folder / f"{name}.{suffix}"
            if suffix == "parquet":
                pq.write_table(pa.Table.from_pylist(rows), file)
            else:
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"kind": "hub", "id": str(folder), "licence": "CC0-1.0"}
        templates = {"prompt": "{{ q }}", "answer": "{{ a }}"}
        return HubDataSource.model_validate(source | templates | options)

    return build


def load_error(source: HubDataSource) -> UserError:
    with pytest.raises(UserError) as caught:
        load_source(source)
    return caught.value


def texts(source: HubDataSource) -> list[tuple[str, ...]]:
    return [
        tuple(turn["content"] for turn in conversation.messages)
        for conversation in load_source(source).conversations
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_templates_make_the_two_turns(build_source: BuildSource, suffix: str) -> None:
    rows = [
        {"q": "one & <two>", "tags": ["a", "b"], "a": {"text": "yes"}, "n": 2},
        {"q": "日本", "tags": ["c", "d"], "a": {"text": "no"}, "n": 0},
    ]
    source = build_source(
        {"train": rows},
        suffix,
        prompt="{{ q }}\n\n{% for tag in tags %}[{{ tag }}]{% endfor %}",
        answer="{{ a.text | upper }} {{ n + 1 }}",
    )
    assert texts(source) == [
        ("one & <two>\n\n[a][b]", "YES 3"),
        ("日本\n\n[c][d]", "NO 1"),
    ]


def test_rows_know_their_place_and_are_free_to_be_held_out(build_source: BuildSource) -> None:
    source = build_source({"train": [{"q": "1", "a": "x"}, {"q": "2", "a": "y"}]})
    loaded = load_source(source)
    ids = [conversation.id for conversation in loaded.conversations]
    assert ids == [f"{source.id}[train][0]", f"{source.id}[train][1]"]
    assert {conversation.side for conversation in loaded.conversations} == {""}
    assert (loaded.num_read, loaded.rejects) == (2, [])
    assert (loaded.licence, loaded.attribution) == ("CC0-1.0", source.id)


def test_an_official_test_split_decides_the_side(build_source: BuildSource) -> None:
    source = build_source(
        {"fit": [{"q": "1", "a": "x"}], "held": [{"q": "2", "a": "y"}, {"q": "3", "a": "z"}]},
        train_split="train",
        test_split="test",
    )
    folder = Path(source.id)
    (folder / "fit.jsonl").rename(folder / "train.jsonl")
    (folder / "held.jsonl").rename(folder / "test.jsonl")
    rows = load_source(source).conversations
    assert [(row.messages[0]["content"], row.side) for row in rows] == [
        ("1", "train"),
        ("2", "test"),
        ("3", "test"),
    ]


def test_a_split_by_another_name_is_trained_on(build_source: BuildSource) -> None:
    rows = {"train": [{"q": "1", "a": "x"}], "validation": [{"q": "2", "a": "y"}]}
    assert texts(build_source(rows, train_split="validation")) == [("2", "y")]


def test_a_split_that_is_not_there_is_told_with_those_that_are(build_source: BuildSource) -> None:
    rows = {"train": [{"q": "1", "a": "x"}], "validation": [{"q": "2", "a": "y"}]}
    source = build_source(rows, test_split="test")
    error = load_error(source)
    assert error.what == (
        f"cannot read split 'test' of {source.id}: "
        "Bad split: test. Available splits: ['train', 'validation']"
    )
    assert error.where == "data.source"


@pytest.mark.parametrize("name", ["prompt", "answer"])
def test_a_template_that_asks_for_a_missing_column_is_told_the_columns(
    build_source: BuildSource, name: str
) -> None:
    source = build_source({"train": [{"q": "1", "a": "x"}]}, **{name: "{{ query }}"})
    error = load_error(source)
    assert (
        error.what == f"the template of '{name}' asks for what is not there: 'query' is undefined"
    )
    assert error.where == f"data.source.{name} ({source.id}[train][0])"
    assert error.remedy == "the columns are: q, a"


def test_a_letter_beyond_the_alphabet_is_told_not_left_empty(build_source: BuildSource) -> None:
    source = build_source({"train": [{"q": "1", "a": 4}]}, answer="{{ 'ABCD'[a] }}")
    assert "has no element 4" in load_error(source).what


@pytest.mark.parametrize("template", ["{{ q + 1 }}", "{{ 1 / 0 }}", "{{ q.__class__.mro() }}"])
def test_a_template_that_fails_on_a_row_is_told(build_source: BuildSource, template: str) -> None:
    error = load_error(build_source({"train": [{"q": "1", "a": "x"}]}, prompt=template))
    assert error.what.startswith("the template of 'prompt' fails: ")
    assert error.remedy is not None
    assert error.remedy.endswith("the columns are: q, a")


@pytest.mark.parametrize("template", ["{{ q", "{% for x in q %}", "{{ q | nosuchfilter }}"])
def test_a_template_that_is_no_template_is_told(build_source: BuildSource, template: str) -> None:
    error = load_error(build_source({"train": [{"q": "1", "a": "x"}]}, answer=template))
    assert error.what.startswith("the template of 'answer' is not valid Jinja: ")
    assert error.where == "data.source.answer"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_empty_cells_are_rejected_not_learned_as_none(
    build_source: BuildSource, suffix: str
) -> None:
    rows = [{"q": "1", "a": "x"}, {"q": "2", "a": None}, {"q": " ", "a": "z"}, {"q": "4", "a": "w"}]
    source = build_source({"train": rows}, suffix)
    loaded = load_source(source)
    assert loaded.rejects == [
        Reject(where=f"{source.id}[train][1]", reason="turn 2 (assistant) is empty"),
        Reject(where=f"{source.id}[train][2]", reason="turn 1 (user) is empty"),
    ]
    assert loaded.num_read == 4
    assert texts(source) == [("1", "x"), ("4", "w")]


def test_a_repository_that_cannot_be_reached_is_told() -> None:
    source = HubDataSource(
        kind="hub", id="tunery-tests/none", prompt="{{ q }}", answer="{{ a }}", licence="x"
    )
    error = load_error(source)
    assert error.what.startswith("cannot read split 'train' of tunery-tests/none: ")
    assert error.remedy is not None
    assert "the network" in error.remedy


@pytest.mark.parametrize("content", [b"{broken\n", b""], ids=["broken", "empty"])
def test_files_without_rows_are_told(build_source: BuildSource, content: bytes) -> None:
    source = build_source({"train": []})
    (Path(source.id) / "train.jsonl").write_bytes(content)
    error = load_error(source)
    assert error.what.startswith(f"cannot read split 'train' of {source.id}: ")


def test_a_folder_without_data_is_told(tmp_path: Path) -> None:
    source = HubDataSource(kind="hub", id=str(tmp_path), prompt="q", answer="a", licence="x")
    assert "doesn't contain any data files" in load_error(source).what


# The templates of the committed variants, on a row as their data sets have it.


def committed(name: str, build_source: BuildSource, row: dict[str, Any]) -> HubDataSource:
    configured = load_config(CONFIGS / f"{name}.yaml").data.source
    assert isinstance(configured, HubDataSource)
    local = build_source({"train": [row], "test": [row]}, "parquet")
    return configured.model_copy(update={"id": local.id, "subset": None})


def test_medical_rows_read_as_questions_with_options(build_source: BuildSource) -> None:
    row = {
        "question": "A 23-year-old pregnant woman has burning upon urination. Best treatment?",
        "answer": "Nitrofurantoin",
        "options": {
            "A": "Ampicillin",
            "B": "Ceftriaxone",
            "C": "Doxycycline",
            "D": "Nitrofurantoin",
        },
        "meta_info": "step2&3",
        "answer_idx": "D",
    }
    expected = (
        "A 23-year-old pregnant woman has burning upon urination. Best treatment?\n"
        "\n"
        "A) Ampicillin\n"
        "B) Ceftriaxone\n"
        "C) Doxycycline\n"
        "D) Nitrofurantoin\n"
        "\n"
        "Answer with the letter.",
        "D",
    )
    assert texts(committed("medical", build_source, row)) == [expected, expected]


def test_legal_rows_read_as_a_passage_with_holdings(build_source: BuildSource) -> None:
    row = {
        "context": "The court agreed. See Smith v. Jones (<HOLDING>).",
        "endings": [f"holding that {n}" for n in ("one", "two", "three", "four", "five")],
        "label": 3,
    }
    expected = (
        "The court agreed. See Smith v. Jones (<HOLDING>).\n"
        "\n"
        "Which holding is meant?\n"
        "\n"
        "A) holding that one\n"
        "B) holding that two\n"
        "C) holding that three\n"
        "D) holding that four\n"
        "E) holding that five\n"
        "\n"
        "Answer with the letter.",
        "D",
    )
    assert texts(committed("legal", build_source, row)) == [expected, expected]


def test_support_rows_read_as_a_task_and_its_command(build_source: BuildSource) -> None:
    row = {"nl": "Count lines in a.txt", "bash": "wc -l < a.txt | awk '{print $1}'"}
    expected = (
        "Count lines in a.txt\nAnswer with one Bash command and nothing else.",
        "wc -l < a.txt | awk '{print $1}'",
    )
    assert texts(committed("support", build_source, row)) == [expected, expected]
