import codecs
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.schema import JsonlSource
from data.conversation import Reject, SourceRows, question_and_answer
from data.load_source import load_source
from tests.data.sources.damaged_lines import DAMAGED_LINES


def source_of(folder: Path, *lines: bytes, **options: str) -> JsonlSource:
    file = folder / "rows.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return JsonlSource(kind="jsonl", path=file, **options)


def load(folder: Path, *lines: bytes) -> SourceRows:
    return load_source(source_of(folder, *lines))


def dumped(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


QA = {"prompt": "q", "completion": "a"}


def test_every_line_is_a_conversation(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": "日"}]}
    source = source_of(tmp_path, *dumped([QA, chat]), licence="CC0-1.0", attribution="The clinic")
    rows = load_source(source)
    assert rows.conversations == [
        question_and_answer("q", "a", id="rows.jsonl:1"),
        question_and_answer("é", "日", id="rows.jsonl:2"),
    ]
    assert (rows.num_read, rows.rejects, rows.dropped) == (2, [], {})
    assert (rows.licence, rows.attribution) == ("CC0-1.0", "The clinic")


def test_id_and_group_are_taken_from_the_row(tmp_path: Path) -> None:
    rows = load(tmp_path, *dumped([QA | {"id": "x", "group": "g"}, QA | {"id": 7, "group": 0}]))
    assert [(row.id, row.group) for row in rows.conversations] == [("x", "g"), ("7", "0")]


def test_null_is_no_id_and_no_group(tmp_path: Path) -> None:
    rows = load(tmp_path, *dumped([QA | {"id": None, "group": None}, QA | {"id": ""}]))
    assert [(row.id, row.group) for row in rows.conversations] == [
        ("rows.jsonl:1", ""),
        ("rows.jsonl:2", ""),
    ]


def test_an_id_given_twice_is_told_apart_by_its_line(tmp_path: Path) -> None:
    rows = load(tmp_path, *dumped([QA | {"id": "x"}, QA | {"id": "y"}, QA | {"id": "x"}]))
    assert [row.id for row in rows.conversations] == ["x", "y", "x (rows.jsonl:3)"]


def test_blank_lines_are_not_rows_but_count_as_lines(tmp_path: Path) -> None:
    rows = load(tmp_path, b"", *dumped([QA]), b"  \t", b"{", b"")
    assert rows.num_read == 2
    assert rows.conversations[0].id == "rows.jsonl:2"
    assert rows.rejects[0].where == "rows.jsonl:4"


@pytest.mark.parametrize("ending", [b"\r", b""], ids=["crlf", "lf"])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""], ids=["bom", "no bom"])
def test_files_of_other_systems_are_read(tmp_path: Path, ending: bytes, mark: bytes) -> None:
    first, second = dumped([QA, QA])
    rows = load(tmp_path, mark + first + ending, second + ending)
    assert (len(rows.conversations), rows.rejects) == (2, [])


def test_a_last_line_without_an_end_is_read(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    source.path.write_bytes(dumped([QA])[0])
    assert load_source(source).num_read == 1


def test_an_empty_file_holds_no_rows(tmp_path: Path) -> None:
    assert load(tmp_path).num_read == 0


def test_each_damaged_line_is_a_reject_with_its_line_and_reason(tmp_path: Path) -> None:
    good = dumped([QA])
    lines = [line for damaged, _ in DAMAGED_LINES for line in (damaged, *good)]
    rows = load(tmp_path, *lines)
    assert rows.rejects == [
        Reject(where=f"rows.jsonl:{2 * number + 1}", reason=reason)
        for number, (_, reason) in enumerate(DAMAGED_LINES)
    ]
    assert len(rows.conversations) == len(DAMAGED_LINES)
    assert rows.num_read == 2 * len(DAMAGED_LINES)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    source = JsonlSource(kind="jsonl", path=tmp_path / "none.jsonl")
    with pytest.raises(UserError) as caught:
        load_source(source)
    assert caught.value.what == "cannot read the data file: No such file or directory"
    assert caught.value.where == str(source.path)
