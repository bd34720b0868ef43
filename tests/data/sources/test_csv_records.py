"""Records that span lines, and damage that costs no other record."""

from pathlib import Path

import pytest

from data.checks import MAX_CHARACTERS
from tests.data.sources.reading import read_files


def read(folder: Path, text: str | bytes) -> tuple[list[str], list[str]]:
    """Places and answers of the rows of a CSV file with columns `q` and `a`, and the rejects."""
    file = folder / "t.csv"
    file.write_bytes(b"q,a\n" + (text.encode() if isinstance(text, str) else text))
    rows = read_files(file)
    return (
        [f"{row.where} {row.messages[1]['content']}" for row in rows.conversations],
        [f"{reject.where} {reject.reason}" for reject in rows.rejects],
    )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('1,"a,b"\n2,c\n', ["t.csv:2 a,b", "t.csv:3 c"]),
        ('1,"he said ""no"""\n', ['t.csv:2 he said "no"']),
        ('1,"a\nb\n\nc"\n\n2,d', ["t.csv:2 a\nb\n\nc", "t.csv:7 d"]),
        ('1,5" pipe\n2,b\n', ['t.csv:2 5" pipe', "t.csv:3 b"]),
        ('"1\n","a"\r\n2,b\r\n', ["t.csv:2 a", "t.csv:4 b"]),
    ],
)
def test_records_as_the_standard_has_them(text: str, rows: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, text) == (rows, [])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("1", "1 fields instead of 2"),
        ("1,b,c", "3 fields instead of 2"),
        ('1,"b"c', 'more after the quote that closes a field: write quotes within it twice ("")'),
        ('1,"b', 'more after the quote that closes a field: write quotes within it twice ("")'),
        (b"1,caf\xe9", "not valid UTF-8"),
        ("1,", "`a` is empty"),
        (",b", "`q` is empty"),
        ("1,\0", "turn 2 holds a NUL character"),
        (f"1,{'b' * (MAX_CHARACTERS + 1)}", "a field of more than 1,000,000 characters"),
    ],
)
def test_a_broken_record_costs_no_other(bad: str | bytes, reason: str, tmp_path: Path) -> None:
    broken = bad.encode() if isinstance(bad, str) else bad
    rows, rejects = read(tmp_path, b"0,a\n" + broken + b'\n"2","c"\n3,d\n')
    assert rows == ["t.csv:2 a", "t.csv:4 c", "t.csv:5 d"]
    (reject,) = rejects
    assert reject.startswith(f"t.csv:3 {reason}")


def test_a_quote_that_never_closes_swallows_nothing(tmp_path: Path) -> None:
    rows, rejects = read(tmp_path, '0,a\n1,"b\n' + "".join(f"{n},x\n" for n in range(500)))
    assert len(rows) == 501
    assert rejects == ["t.csv:3 a quote is opened and never closed"]


def test_tabs_and_quotes(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    file.write_text('q\ta\n1\t"x\ty"\n2\tb, c\n')
    answers = [row.messages[1]["content"] for row in read_files(file).conversations]
    assert answers == ["x\ty", "b, c"]


def test_an_index_column_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(",q,a\n0,1,x\n")
    assert read_files(file).num_read == 1
