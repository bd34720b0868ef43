"""Local files: formats, compression, sides, ids; every row read or told."""

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from configs.errors import UserError
from data.conversation import Reject, question_and_answer
from data.load_source import open_source
from tests.data.sources.damaged_lines import DAMAGED_LINES, GOOD_LINE
from tests.data.sources.reading import MESSAGES, asked, files_source, read_all, read_files

Rows = list[dict[str, Any]]
ROWS: Rows = [{"q": "one", "a": "x"}, {"q": '日本, \n"two"', "a": "é"}, {"q": "three", "a": "z"}]


def jsonl(rows: Rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def table(rows: Rows, delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "rows.jsonl": jsonl,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "data.json": lambda rows: json.dumps({"version": 1, "data": rows}).encode(),
    "lines.json": jsonl,
    "rows.csv": table,
    "semicolons.csv": lambda rows: table(rows, ";"),
    "rows.tsv": lambda rows: table(rows, "\t"),
    "rows.parquet": parquet,
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("packed", list(PACKERS))
@pytest.mark.parametrize("name", list(WRITERS))
def test_every_format_gives_the_same_rows(name: str, packed: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}{packed}"
    file.write_bytes(PACKERS[packed](WRITERS[name](ROWS)))
    if packed and name.endswith(".parquet"):
        with pytest.raises(UserError, match="does not tell a format that can be read"):
            read_files(file)
        return
    rows = read_files(file)
    assert asked(rows) == [row["q"].strip() for row in ROWS]
    assert (rows.num_read, rows.rejects) == (3, [])


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("rows.jsonl", ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"]),
        ("rows.json", ["rows.json[0]", "rows.json[1]", "rows.json[2]"]),
        # The second row spans two lines.
        ("rows.csv", ["rows.csv:2", "rows.csv:3", "rows.csv:5"]),
        ("rows.parquet", ["rows.parquet[0]", "rows.parquet[1]", "rows.parquet[2]"]),
    ],
)
def test_rows_know_their_place(name: str, places: list[str], tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(WRITERS[name](ROWS))
    rows = read_files(file).conversations
    assert [row.where for row in rows] == [row.id for row in rows] == places


def test_id_and_group_are_taken_from_the_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    pair = {"q": "?", "a": "!"}
    labels: Rows = [{"id": "x", "group": "g"}, {"id": 7, "group": 0}, {"id": None}, {"id": ""}]
    file.write_bytes(jsonl([pair | label for label in labels]))
    rows = read_files(file).conversations
    found = [(row.id, row.group, row.where) for row in rows]
    assert found == [
        ("x", "g", "rows.jsonl:1"),
        ("7", "0", "rows.jsonl:2"),
        ("rows.jsonl:3", "", "rows.jsonl:3"),
        ("rows.jsonl:4", "", "rows.jsonl:4"),
    ]
    file.write_bytes(jsonl([pair | {"case": 3, "patient": "p"}]))
    (row,) = read_files(file, id_column="case", group_column="patient").conversations
    assert (row.id, row.group) == ("3", "p")


def test_keys_of_an_object_of_objects_are_ids(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    rows = {"a1": ROWS[0], "é": ROWS[1], "own": ROWS[2] | {"id": "z"}, "bad": 3}
    file.write_text(json.dumps(rows))
    read = read_files(file)
    assert [row.id for row in read.conversations] == ["a1", "é", "z"]
    assert read.rejects == [
        Reject(where="rows.json[3]", reason="the row is a number, not an object")
    ]


def test_blank_lines_are_not_rows_but_count_as_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n" + GOOD_LINE + b"\n \t\n{\n\n" + GOOD_LINE)
    rows = read_files(file, shape=MESSAGES)
    assert [row.where for row in rows.conversations] == ["rows.jsonl:2", "rows.jsonl:6"]
    assert [reject.where for reject in rows.rejects] == ["rows.jsonl:4"]


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"], ids=["crlf", "lf"])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""], ids=["bom", "no bom"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_files_of_other_systems_are_read(
    name: str, mark: bytes, ending: bytes, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(mark + WRITERS[name]([ROWS[0], ROWS[2]]).replace(b"\n", ending))
    rows = read_files(file)
    assert (asked(rows), rows.rejects) == (["one", "three"], [])


def test_utf16_is_told_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("q,a\n1,2\n".encode("utf-16"))
    with pytest.raises(UserError, match="the file is in UTF-16") as caught:
        open_source(files_source(file))
    assert "iconv" in (caught.value.remedy or "")


def test_each_damaged_line_is_a_reject_with_its_line_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(line for bad, _ in DAMAGED_LINES for line in (bad, GOOD_LINE)))
    rows = read_files(file, shape=MESSAGES)
    assert len(rows.conversations) == len(DAMAGED_LINES) >= 20
    assert len(rows.rejects) == len(DAMAGED_LINES)
    for number, (reject, (_, reason)) in enumerate(zip(rows.rejects, DAMAGED_LINES, strict=True)):
        assert reject.where == f"rows.jsonl:{2 * number + 1}"
        assert reject.reason.startswith(reason)


def test_globs_and_lists_of_files(tmp_path: Path) -> None:
    for name, row in zip(("b/part.jsonl", "a/part.jsonl", "a/rest.csv"), ROWS, strict=True):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(WRITERS[f"rows{file.suffix}"]([row]))
    rows = read_files([tmp_path / "*" / "part.jsonl", tmp_path / "a" / "rest.csv"])
    assert [row.where for row in rows.conversations] == [
        "a/part.jsonl:1",
        "b/part.jsonl:1",
        "a/rest.csv:2",
    ]
    assert asked(read_files(tmp_path / "**" / "*.jsonl")) == [ROWS[1]["q"], ROWS[0]["q"]]


def test_sides_are_those_of_the_official_files(tmp_path: Path) -> None:
    files = {}
    for name, row in zip(("train", "dev", "test"), ROWS, strict=True):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_bytes(jsonl([row]))

    def sides(**options: Path) -> list[str]:
        return [row.side for row in read_files(files["train"], **options).conversations]

    assert sides() == [""]
    assert sides(test_path=files["test"]) == ["train", "test"]
    assert sides(validation_path=files["dev"]) == ["", "validation"]
    both = {"validation_path": files["dev"], "test_path": files["test"]}
    assert sides(**both) == ["train", "validation", "test"]


def test_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("one,x\ntwo,y\n")
    rows = read_files(file, columns=["q", "a"])
    assert [row.where for row in rows.conversations] == ["rows.csv:1", "rows.csv:2"]
    file.write_text("q,a\none,x\n")
    assert asked(read_files(file, columns=["q", "a"])) == ["one"]


def test_a_format_that_the_name_does_not_tell(tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_bytes(jsonl(ROWS))
    with pytest.raises(UserError, match="does not tell a format"):
        open_source(files_source(file))
    assert read_files(file, format="jsonl").num_read == 3


def test_the_shape_is_detected_and_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"instruction": "i", "output": "o", "source": "web", "id": "1"}
    file.write_bytes(jsonl([row] * 1500 + [{"instruction": "i"}]))
    source = open_source(files_source(file, shape=None))
    assert source.told == (
        "rows.jsonl: JSON Lines, shape alpaca: 1,000 of the first 1,000 rows fit; "
        "columns not used: source"
    )
    rows = read_all(source)
    assert (len(rows.conversations), len(rows.rejects)) == (1500, 1)
    assert open_source(files_source(file, shape={"kind": "alpaca"})).told == ""


def test_licence_and_attribution_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(jsonl(ROWS))
    source = open_source(files_source(file, licence="CC0-1.0", attribution="The clinic"))
    assert (source.licence, source.attribution) == ("CC0-1.0", "The clinic")


def test_a_large_file_comes_in_several_chunks_with_running_numbers(tmp_path: Path) -> None:
    rows = [{"q": f"{n} " + "x" * 300, "a": str(n)} for n in range(9000)]
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        file = tmp_path / name
        file.write_bytes(WRITERS[name](rows))
        source = open_source(files_source(file))
        assert len(list(source.chunks())) > 1
        read = read_all(source)
        offset = {"rows.jsonl": 1, "rows.csv": 2}.get(name, 0)
        for number in (0, 4500, 8999):
            place = f"[{number}]" if not offset else f":{number + offset}"
            row = read.conversations[number]
            assert (row.where, row.messages[1]["content"]) == (f"{name}{place}", str(number))


def test_a_row_is_the_same_conversation_in_every_process(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(jsonl([{"q": " q ", "a": "a"}]))
    (row,) = read_files(file).conversations
    expected = question_and_answer("q", "a", id="rows.jsonl:1")
    assert (row.messages, row.tools, row.rejected) == (expected.messages, (), None)


def test_pairs_keep_the_rejected_answer_unless_it_is_the_preferred_one(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    pair = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    file.write_bytes(jsonl([pair, pair | {"rejected": " good"}]))
    rows = read_files(file, shape=None)
    assert [row.rejected for row in rows.conversations] == [{"role": "assistant", "content": "bad"}]
    told = "the preferred and the rejected answer are the same"
    assert rows.rejects == [Reject(where="rows.jsonl:2", reason=told)]


# The official test split by ids.


def test_listed_ids_are_the_test_split(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(jsonl([row | {"id": n} for n, row in enumerate(ROWS)]))
    for listed in ('["1", 2]', '{"1": "yes", "2": "no"}', "1\n2\n\n"):
        ids = tmp_path / "ids"
        ids.write_text(listed)
        rows = read_files(file, test_ids_path=ids)
        assert [row.side for row in rows.conversations] == ["train", "test", "test"]


def test_listed_ids_beside_an_official_test_file(tmp_path: Path) -> None:
    train, test, ids = (tmp_path / name for name in ("train.jsonl", "test.jsonl", "ids"))
    train.write_bytes(jsonl([row | {"id": n} for n, row in enumerate(ROWS)]))
    test.write_bytes(jsonl([ROWS[0] | {"id": "t"}]))
    ids.write_text("1")
    rows = read_files(train, test_path=test, test_ids_path=ids)
    assert [row.side for row in rows.conversations] == ["train", "test", "train", "test"]


@pytest.mark.parametrize(
    ("listed", "what"),
    [
        ("", "the file of the test split's ids holds none"),
        ("[]", "the file of the test split's ids holds none"),
        ("[1,", "the ids of the test split cannot be read: "),
        (None, "cannot read the data file: No such file or directory"),
    ],
)
def test_a_list_of_ids_that_cannot_be_used(listed: str | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(jsonl(ROWS))
    ids = tmp_path / "ids.json"
    if listed is not None:
        ids.write_text(listed)
    with pytest.raises(UserError) as caught:
        open_source(files_source(file, test_ids_path=ids))
    assert caught.value.what.startswith(what)
    assert caught.value.where == f"test_ids_path: {ids}"
