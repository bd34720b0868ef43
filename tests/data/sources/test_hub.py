"""Data sets as `datasets` streams them, here from local folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.data_schema import HubDataSource
from configs.errors import UserError
from data.conversation import Reject
from data.load_source import open_source
from data.sources.hub import HubRows, open_hub, resolve_revision
from tests.data.sources.reading import asked, read_all

pytestmark = pytest.mark.usefixtures("own_datasets_cache")

Rows = list[dict[str, Any]]
BuildSource = Callable[..., HubDataSource]
SHAPE = {"kind": "question_answer", "question": "q", "answer": "a"}
ROWS = [{"q": "1", "a": "x"}, {"q": "2", "a": "y"}, {"q": "3", "a": "z"}]


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
        given = {"kind": "hub", "id": str(folder), "licence": "CC0-1.0", "shape": SHAPE}
        return HubDataSource.model_validate(given | options)

    return build


def error_of(source: HubDataSource) -> UserError:
    with pytest.raises(UserError) as caught:
        read_all(open_source(source))
    return caught.value


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rows_know_their_place_and_are_free_to_be_held_out(
    suffix: str, build_source: BuildSource
) -> None:
    source = build_source({"train": ROWS}, suffix)
    opened = open_source(source)
    rows = read_all(opened)
    assert [row.id for row in rows.conversations] == [f"{source.id}[train][{n}]" for n in range(3)]
    assert {row.side for row in rows.conversations} == {""}
    assert (opened.licence, opened.attribution, opened.told) == ("CC0-1.0", source.id, "")


def test_official_splits_decide_the_side(build_source: BuildSource) -> None:
    splits = {"train": ROWS[:1], "validation": ROWS[1:2], "test": ROWS[2:]}

    def sides(**names: str) -> list[tuple[str, str]]:
        rows = read_all(open_source(build_source(splits, **names))).conversations
        return [(row.messages[0]["content"], row.side) for row in rows]  # type: ignore[misc]

    assert sides(test_split="test") == [("1", "train"), ("3", "test")]
    assert sides(validation_split="validation") == [("1", ""), ("2", "validation")]
    both = sides(validation_split="validation", test_split="test")
    assert both == [("1", "train"), ("2", "validation"), ("3", "test")]
    assert sides(train_split="validation") == [("2", "")]


def test_ids_groups_and_listed_test_ids(build_source: BuildSource, tmp_path: Path) -> None:
    rows = [row | {"key": 100 + n, "case": "c"} for n, row in enumerate(ROWS)]
    ids = tmp_path / "ids.json"
    ids.write_text("[101]")
    source = build_source({"train": rows}, id_column="key", group_column="case", test_ids_path=ids)
    found = [(row.id, row.group, row.side) for row in read_all(open_source(source)).conversations]
    assert found == [("100", "c", "train"), ("101", "c", "test"), ("102", "c", "train")]


def test_empty_cells_are_rejects_not_learned_as_none(build_source: BuildSource) -> None:
    source = build_source({"train": [*ROWS, {"q": "4", "a": None}]}, "parquet")
    rows = read_all(open_source(source))
    assert rows.rejects == [Reject(where=f"{source.id}[train][3]", reason="`a` is empty")]
    assert (rows.num_read, asked(rows)) == (4, ["1", "2", "3"])


def test_the_shape_is_detected(build_source: BuildSource) -> None:
    rows = [{"question": "q", "choices": ["x", "y"], "answer": 0}]
    source = build_source({"train": rows}, "parquet", shape=None)
    opened = open_source(source)
    assert opened.told.startswith(f"{source.id}, shape multiple_choice (question: question, ")
    assert asked(read_all(opened)) == ["q\n\nA) x\nB) y\n\nAnswer with the letter."]


def test_classes_are_told_by_name_where_they_are_the_answer(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["Fair", "Unfair"]),
            "labels": datasets.List(datasets.ClassLabel(names=["Choice of law", "Arbitration"])),
        }
    )
    rows = {"text": ["p", "q", "r"], "label": [1, 0, -1], "labels": [[0, 1], [], [1]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")

    def answers(shape: dict[str, Any]) -> list[str]:
        given = {"kind": "hub", "id": str(tmp_path), "shape": shape}
        rows = read_all(open_source(HubDataSource.model_validate(given)))
        return [str(row.messages[1]["content"]) for row in rows.conversations]

    free = {"kind": "question_answer", "question": "text"}
    assert answers(free | {"answer": "label"}) == ["Unfair", "Fair"]
    assert answers(free | {"answer": "labels"}) == [
        "Choice of law, Arbitration",
        "none",
        "Arbitration",
    ]
    template = {"kind": "template", "prompt": "{{ text }}", "answer": "{{ label }}"}
    assert answers(template) == ["1", "0", "-1"]
    turns = {"kind": "messages"}
    with pytest.raises(UserError, match="no column `messages`"):
        answers(turns)


def test_files_that_names_do_not_tell_are_read_by_pattern(
    build_source: BuildSource, tmp_path: Path
) -> None:
    source = build_source({}, test_split="test")
    folder = Path(source.id)
    (folder / "all.tsv").write_text("q\ta\n1\tx\n2\ty\n")
    (folder / "held.csv").write_text("q,a\n3,z\n")
    opened = open_hub(source, files={"train": "all.tsv", "test": "held.csv"})
    rows = read_all(opened).conversations
    assert [(row.messages[0]["content"], row.side) for row in rows] == [
        ("1", "train"),
        ("2", "train"),
        ("3", "test"),
    ]


def test_many_rows_come_in_several_chunks(build_source: BuildSource) -> None:
    rows = [{"q": f"{n} " + "x" * 2000, "a": "y"} for n in range(5000)]
    source = build_source({"train": rows}, "parquet")
    opened = open_source(source)
    assert len(list(opened.chunks())) > 2
    places = [row.where for row in read_all(opened).conversations]
    assert places == [f"{source.id}[train][{n}]" for n in range(5000)]


def test_a_template_that_fits_no_row_is_told_the_columns(build_source: BuildSource) -> None:
    shape = {"kind": "template", "prompt": "{{ query }}", "answer": "{{ a }}"}
    error = error_of(build_source({"train": ROWS}, shape=shape))
    assert "asks for what is not there: 'query' is undefined" in error.what
    assert "the columns are: q, a" in (error.remedy or "")


def test_a_split_that_is_not_there_is_told_with_those_that_are(build_source: BuildSource) -> None:
    source = build_source({"train": ROWS, "validation": ROWS}, test_split="test")
    error = error_of(source)
    assert error.what == (
        f"cannot read split 'test' of {source.id}: "
        "Bad split: test. Available splits: ['train', 'validation']"
    )
    assert error.where == "data.source"


@pytest.mark.parametrize("content", [b"{broken\n", b""], ids=["broken", "empty"])
def test_files_without_rows_are_told(build_source: BuildSource, content: bytes) -> None:
    source = build_source({"train": []})
    (Path(source.id) / "train.jsonl").write_bytes(content)
    error = error_of(source)
    assert error.what.startswith(f"cannot read split 'train' of {source.id}: ")


def test_a_folder_without_data_is_told(tmp_path: Path) -> None:
    source = HubDataSource(kind="hub", id=str(tmp_path))
    assert "doesn't contain any data files" in error_of(source).what


# Which commit, and what is a folder.


def test_a_repository_that_cannot_be_reached_is_told() -> None:
    error = error_of(HubDataSource(kind="hub", id="tunery-tests/none"))
    assert error.what.startswith("cannot read tunery-tests/none: ")
    assert "the network" in (error.remedy or "")


def test_a_commit_needs_no_question_to_the_hub() -> None:
    commit = "0123456789" * 4
    assert resolve_revision("tunery-tests/none", commit) == commit
    source = HubDataSource(kind="hub", id="tunery-tests/none", revision=commit)
    assert error_of(source).what.startswith("cannot read split 'train' of tunery-tests/none: ")


def test_a_folder_is_told_from_a_repository_by_its_first_character(
    build_source: BuildSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_source({"train": ROWS})
    monkeypatch.chdir(tmp_path)
    opened = open_source(source.model_copy(update={"id": "./rows"}))
    assert isinstance(opened, HubRows)
    assert (opened.revision, read_all(opened).num_read) == ("", 3)
    # A folder of that name does not make `owner/name` a local one.
    (tmp_path / "owner").mkdir()
    (tmp_path / "rows").rename(tmp_path / "owner" / "name")
    error = error_of(source.model_copy(update={"id": "owner/name"}))
    assert error.what.startswith("cannot read owner/name: ")


def test_folders_that_cannot_be_read_are_told(build_source: BuildSource, tmp_path: Path) -> None:
    missing = build_source({"train": ROWS}).model_copy(update={"id": str(tmp_path / "none")})
    assert error_of(missing).what == f"no such folder: {tmp_path / 'none'}"
    pinned = build_source({"train": ROWS}, revision="main")
    assert error_of(pinned).what == "a local folder has no revision"
