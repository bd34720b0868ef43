from pathlib import Path

import pytest

from configs.data_schema import ParallelLinesSource
from configs.errors import UserError
from data.conversation import ReadRows, Reject
from data.load_source import open_source
from tests.data.sources.reading import asked, read_all


def read(folder: Path, questions: bytes, answers: bytes, **options: object) -> ReadRows:
    (folder / "t.nl").write_bytes(questions)
    (folder / "t.cm").write_bytes(answers)
    paths = {"questions_path": folder / "t.nl", "answers_path": folder / "t.cm"}
    given = {"kind": "parallel_lines"} | paths | options
    return read_all(open_source(ParallelLinesSource.model_validate(given)))


def test_the_same_lines_belong_together(tmp_path: Path) -> None:
    rows = read(tmp_path, b"list files\n\ncount  lines \n", "ls é\n\nwc -l\n".encode())
    assert asked(rows) == ["list files", "count  lines"]
    assert [row.messages[1]["content"] for row in rows.conversations] == ["ls é", "wc -l"]
    assert [row.where for row in rows.conversations] == ["t.nl:1", "t.nl:3"]


def test_a_last_line_without_an_end(tmp_path: Path) -> None:
    assert read(tmp_path, b"a\nb", b"1\n2\n").num_read == 2


def test_lines_that_are_no_pair_are_rejects(tmp_path: Path) -> None:
    rows = read(tmp_path, b"a\n\nc\nd\ne\n", b"1\n2\n \n\xe9\n5\n")
    assert asked(rows) == ["a", "e"]
    assert rows.rejects == [
        Reject(where="t.nl:2", reason="`question` is empty"),
        Reject(where="t.nl:3", reason="`answer` is empty"),
        Reject(where="t.nl:4", reason="not valid UTF-8"),
    ]


@pytest.mark.parametrize(
    ("questions", "answers", "what"),
    [
        (b"a\nb\n", b"1\n", "t.cm ends after line 1, and t.nl goes on"),
        (b"a\n", b"1\n2\n", "t.nl ends after line 1, and t.cm goes on"),
    ],
)
def test_files_of_different_lengths_are_refused(
    questions: bytes, answers: bytes, what: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, questions, answers)
    assert caught.value.what == what


def test_another_shape_and_ids_by_line(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("2\n")
    shape = {
        "kind": "question_answer",
        "question": "question",
        "answer": "answer",
        "instruction": "One command.",
    }
    rows = read(tmp_path, b"a\nb\n", b"1\n2\n", shape=shape, id_column="line", test_ids_path=ids)
    assert asked(rows) == ["a\n\nOne command.", "b\n\nOne command."]
    assert [(row.id, row.side) for row in rows.conversations] == [("1", "train"), ("2", "test")]


def test_many_lines_come_in_several_chunks(tmp_path: Path) -> None:
    lines = b"".join(b"%d %s\n" % (n, b"x" * 300) for n in range(9000))
    rows = read(tmp_path, lines, lines)
    assert [row.where for row in rows.conversations] == [f"t.nl:{n}" for n in range(1, 9001)]


def test_a_pattern_has_to_name_one_file(tmp_path: Path) -> None:
    for name in ("a.nl", "b.nl"):
        (tmp_path / name).write_text("x\n")
    source = ParallelLinesSource(
        kind="parallel_lines", questions_path=tmp_path / "*.nl", answers_path=tmp_path / "a.nl"
    )
    with pytest.raises(UserError, match="the pattern matches 2 files, and one is needed"):
        open_source(source)
