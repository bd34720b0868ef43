"""Files that are damaged as a whole: one clear error with the place, never half of the rows."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from configs.errors import UserError
from data.load_source import open_source
from tests.data.sources.reading import files_source, read_all, read_files


def some_rows(count: int) -> list[dict[str, str]]:
    chance = random.Random(7)
    return [{"q": f"{n} {chance.random()}", "a": str(chance.random())} for n in range(count)]


def error_of(file: Path, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        read_all(open_source(files_source(file, **options)))
    return caught.value


# As the command line tool does, with a checksum.
ZSTD = zstandard.ZstdCompressor(write_checksum=True)
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in some_rows(60_000))
PACKED = {"rows.jsonl.gz": gzip.compress(LINES), "rows.jsonl.zst": ZSTD.compress(LINES)}


@pytest.mark.parametrize("name", list(PACKED))
def test_a_cut_compressed_file_is_told_with_the_last_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(PACKED[name][:-1000])
    error = error_of(file)
    assert error.what.startswith("the compressed file is damaged or cut off: ")
    assert str(error.where).startswith(f"{file}, after line ")


@pytest.mark.parametrize("name", list(PACKED))
def test_a_damaged_compressed_file_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    broken = bytearray(PACKED[name])
    broken[len(broken) // 2 : len(broken) // 2 + 64] = b"\xff" * 64
    file.write_bytes(broken)
    assert error_of(file).what.startswith("the compressed file is damaged or cut off: ")


@pytest.mark.parametrize("name", list(PACKED))
def test_a_file_that_is_not_compressed_at_all_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(LINES[:1000])
    error = error_of(file)
    assert error.what.startswith("the compressed file is damaged or cut off: ")
    assert error.where == str(file)


def test_several_frames_are_one_file(tmp_path: Path) -> None:
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    for name, pack in (("a.jsonl.zst", zstandard.compress), ("a.jsonl.gz", gzip.compress)):
        file = tmp_path / name
        file.write_bytes(pack(LINES[:half]) + pack(LINES[half:]))
        assert read_files(file).num_read == 60_000


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            '[{"q": "1", "a": "x"}, {"q": ',
            "the file breaks off within a row that begins at byte 24",
        ),
        ('[{"q": "1", "a": "x"}, {"q": "2', "the file breaks off within a row that begins at byte"),
        ('[{"q": "1", "a": "x"}', "expected ',' or ']', found the end of the file at byte 22"),
        ('[{"q": "1", "a": "x"},', "expected a value at byte 23"),
        ('[{"q": "1", "a": "x"} {"q": "2"}]', "expected ',' or ']', found '{' at byte 23"),
        ('[{"q": "1", "a": "x"}}]', "expected ',' or ']', found '}' at byte 22"),
        ('[{"q": ]}]', "expected ',' or ']', found '}' at byte 9"),
        ('[{"q": "1", "a": "x"}] []', "something follows the end of the JSON document at byte 24"),
        ('{"k": {"q": "1", "a": "x"}, 7: 1}', "expected a key in double quotes at byte 29"),
        ('{"k" {"q": "1", "a": "x"}}', "expected a colon after the key at byte 6"),
        ('"text"', "the file holds neither a JSON array nor a JSON object at byte 1"),
        ("", "the file holds neither a JSON array nor a JSON object at byte 1"),
    ],
)
def test_a_json_document_that_breaks_is_told_with_the_byte(
    text: str, what: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    error = error_of(file)
    assert error.what.startswith(what)
    assert str(error.where).startswith(str(file))


def test_a_break_far_into_a_json_document_is_told_after_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    whole = json.dumps(some_rows(30_000)).encode()
    file.write_bytes(whole[:-100])
    error = error_of(file)
    begin = whole.rindex(b"{", 0, len(whole) - 100)
    expected = f"the file breaks off within a row that begins at byte {begin + 1:,}"
    assert error.what == expected
    assert error.where == f"{file}, after row 29,998"


def test_a_fault_within_a_json_row_costs_that_row_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    good = '{"q": "[1}", "a": "\\"{"}'
    bad = ['{"q": tru}', '{"q": "\\ud83d", "a": "x"}', "[1]", '{"q": "a" "b"}', "NaN"]
    file.write_text(f"[{good}, {', '.join(bad)}, {good}]")
    rows = read_files(file)
    assert [row.where for row in rows.conversations] == ["rows.json[0]", "rows.json[6]"]
    assert [reject.where for reject in rows.rejects] == [f"rows.json[{n}]" for n in range(1, 6)]


def test_a_nesting_bomb_within_json_is_a_reject(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    bomb = '{"q": ' + "[" * 200_000 + "]" * 200_000 + "}"
    file.write_text(f'[{{"q": "1", "a": "x"}}, {bomb}]')
    rows = read_files(file)
    assert len(rows.conversations) == 1
    assert rows.rejects[0].reason == "not usable JSON: nested too deeply"


def test_a_row_longer_than_any_is_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 3 << 20
    for module in ("streams", "json_lines", "json_items"):
        monkeypatch.setattr(f"data.sources.{module}.MAX_ROW_BYTES", limit)
    row = json.dumps({"q": "1", "a": "x"})
    long = json.dumps({"q": "1", "a": "x" * 5 * limit})
    lines = tmp_path / "rows.jsonl"
    lines.write_text(f"{row}\n{long}\n{row}\n{long}")
    rows = read_files(lines)
    assert [one.where for one in rows.conversations] == ["rows.jsonl:1", "rows.jsonl:3"]
    assert [one.where for one in rows.rejects] == ["rows.jsonl:2", "rows.jsonl:4"]
    assert {one.reason for one in rows.rejects} == {"a line of more than 3 MiB"}
    whole = tmp_path / "rows.json"
    whole.write_text(f"[{row}, {long}]")
    assert error_of(whole).what.startswith("brackets or quotes do not close within 3 MiB of a row")
    records = tmp_path / "rows.csv"
    records.write_text(f"q,a\n1,x\n2,{'x' * 5 * limit}\n3,z\n")
    rows = read_files(records)
    assert [one.where for one in rows.conversations] == ["rows.csv:2", "rows.csv:4"]
    assert [one.where for one in rows.rejects] == ["rows.csv:3"]


def test_what_is_not_parquet_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(LINES[:1000])
    error = error_of(file)
    assert error.what.startswith("the Parquet file cannot be read: ")
    assert error.where == str(file)


def test_a_damaged_parquet_file_is_told_with_the_last_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(some_rows(20_000)), file, row_group_size=5000)
    broken = bytearray(file.read_bytes())
    start = pq.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
    broken[start : start + 400] = b"\xff" * 400
    file.write_bytes(broken)
    error = error_of(file)
    assert error.what.startswith("the Parquet file cannot be read: ")
    assert error.where == f"{file}, after row 10,000" or error.where == f"{file}, after row 8,000"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json", "rows.parquet"])
def test_a_file_without_rows_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"q": pa.array([], pa.string())}), file)
    else:
        file.write_text({"rows.json": "[]", "rows.csv": "q,a\n"}.get(name, "\n\n"))
    error = error_of(file)
    assert (error.what, error.where) == ("there are no rows", str(file))


def test_a_file_of_nothing_but_damage_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("q,a\n1,2\n")
    assert error_of(file).what.startswith("none of the first 2 rows can be read: not valid JSON")


def test_a_shape_that_no_row_has_is_told_with_the_columns(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "q", "answer": "a"}\n')
    error = error_of(file)
    assert error.what == (
        "none of the first 1 rows has the shape question_answer (question: q, answer: a): "
        "no column `q` (the columns are: question, answer)"
    )
    assert "the columns are: question, answer" in (error.remedy or "")


def test_a_test_file_of_another_shape_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"q": "q", "a": "a"}\n')
    (tmp_path / "test.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    error = error_of(tmp_path / "train.jsonl", test_path=tmp_path / "test.jsonl")
    assert error.where == str(tmp_path / "test.jsonl")


def test_paths_that_name_no_file_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"q": "q", "a": "a"}\n')
    assert error_of(tmp_path / "*.csv").what == "no file matches the pattern"
    assert error_of(tmp_path).what == "this is a folder, not a file"
    assert error_of(tmp_path / "none.jsonl").what.endswith("No such file or directory")
    twice = error_of(file, test_path=tmp_path / "*.jsonl")
    assert (twice.what, twice.where) == ("the same file is named more than once", str(file))
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    assert error_of(file, test_path=link).what == "the same file is named more than once"
    assert error_of(file, columns=["q", "a"]).what.startswith("`columns` names the columns of CSV")


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"q,a,q\n", "the header has the name 'q' twice"),
        (b"q,\xe9\n", "the header is not valid UTF-8"),
        (b'q,"a"b\n', "the header cannot be read: more after the quote"),
    ],
)
def test_a_header_that_cannot_be_used_is_told(header: bytes, what: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(header + b"1,2,3\n")
    error = error_of(file)
    assert error.what.startswith(what)
    assert error.where == f"{file}:1"
