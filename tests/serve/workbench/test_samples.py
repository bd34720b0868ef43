import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from serve.errors import ApiError
from serve.workbench import samples
from serve.workbench.samples import MAX_LIMIT, find_samples


def sample(n: int, **changed: object) -> dict[str, Any]:
    return {
        "id": f"row/{n}",
        "task": "chapters",
        "outcome": "won",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Which chapter holds number {n}?"},
        ],
        "reference": f"reference {n}",
        "baseline": {"name": "theirs", "text": f"before {n}", "score": 0.0},
        "variant": {"name": "ours", "text": f"after {n}", "score": 1.0},
        **changed,
    }


def write(folder: Path, *lines: object) -> Path:
    file = folder / "samples.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(f"{text}\n" for text in texts))
    return file


def ids(found: dict[str, Any]) -> list[str]:
    return [one["id"] for one in found["samples"]]


def test_samples_come_as_they_were_written(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]
    lines = [sample(1), sample(2, task="other", messages=turns, tools=[{"type": "function"}])]
    assert find_samples(write(tmp_path, *lines)) == {
        "tasks": ["chapters", "other"],
        "total": 2,
        "samples": lines,
    }


def test_task_outcome_and_words_narrow_what_is_found(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        sample(1),
        sample(2, outcome="lost"),
        sample(3, task="guard", outcome="lost"),
        sample(4, task="guard", outcome="same"),
    )
    assert ids(find_samples(file, task="guard")) == ["row/3", "row/4"]
    assert ids(find_samples(file, outcome="lost")) == ["row/2", "row/3"]
    assert ids(find_samples(file, task="guard", outcome="lost")) == ["row/3"]
    assert ids(find_samples(file, search="CHAPTER 3?")) == ["row/3"]
    found = find_samples(file, task="gone")
    assert found == {"tasks": ["chapters", "guard"], "total": 0, "samples": []}


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("before 2", ["row/2"]),
        ("after 1", ["row/1"]),
        ("REFERENCE 2", ["row/2"]),
        ("row/1", ["row/1"]),
        ("brief", ["row/1", "row/2"]),
        ("strasse", ["row/2"]),
        ("look here", ["row/2"]),
        ("here  look", ["row/2"]),
        # Neither names of fields nor images are words of a sample.
        ("image_url", []),
        ("aaaa", []),
        ("theirs", []),
    ],
)
def test_words_are_looked_for_in_all_texts(
    tmp_path: Path, search: str, expected: list[str]
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "Look at the Straße here; be brief."}, image]
    other = sample(2, messages=[{"role": "user", "content": parts}])
    assert ids(find_samples(write(tmp_path, sample(1), other), search=search)) == expected


def test_pages_follow_each_other(tmp_path: Path) -> None:
    file = write(tmp_path, *(sample(n) for n in range(7)))
    pages = [find_samples(file, offset=offset, limit=3) for offset in (0, 3, 6, 9)]
    assert [ids(page) for page in pages] == [
        ["row/0", "row/1", "row/2"],
        ["row/3", "row/4", "row/5"],
        ["row/6"],
        [],
    ]
    assert {page["total"] for page in pages} == {7}


def test_a_page_of_large_samples_is_cut_and_always_holds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, *(sample(n, reference="x" * 1000) for n in range(3)))
    num_bytes = len(json.dumps(sample(0, reference="x" * 1000))) + 1
    monkeypatch.setattr(samples, "MAX_PAGE_BYTES", 2 * num_bytes)
    assert ids(find_samples(file)) == ["row/0", "row/1"]
    assert ids(find_samples(file, offset=2)) == ["row/2"]
    monkeypatch.setattr(samples, "MAX_PAGE_BYTES", num_bytes - 1)
    assert ids(find_samples(file, offset=1)) == ["row/1"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"outcome": "wrong"}, "outcome"),
        ({"limit": 0}, "limit"),
        ({"limit": MAX_LIMIT + 1}, "limit"),
        ({"offset": -1}, "offset"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    tmp_path: Path, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        find_samples(write(tmp_path, sample(1)), **asked)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_no_file_holds_no_samples(tmp_path: Path) -> None:
    nothing = {"tasks": [], "total": 0, "samples": []}
    assert find_samples(tmp_path / "gone" / "samples.jsonl") == nothing
    assert find_samples(tmp_path) == nothing
    assert find_samples(write(tmp_path)) == nothing


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{}",
        "[]",
        "null",
        json.dumps(sample(9))[:-9],
        sample(9, outcome="drawn"),
        sample(9, outcome=["won"]),
        sample(9, messages=None),
        sample(9, messages=[{"role": "user"}]),
        sample(9, messages=[{"role": "user", "content": [{"type": "text"}]}]),
        sample(9, reference=None),
        sample(9, task=7),
        sample(9, id=9),
        sample(9, variant={"name": "ours", "text": 3, "score": 1}),
        sample(9, variant={"name": "ours", "text": "x", "score": None}),
        # Of an escape that stands for no character, and a number that is none.
        json.dumps(sample(9, reference="\ud800")),
        json.dumps(sample(9, id=float("nan"))),
    ],
)
def test_a_line_that_is_no_sample_is_passed_over(tmp_path: Path, broken: object) -> None:
    found = find_samples(write(tmp_path, sample(1), broken, sample(2)))
    assert ids(found) == ["row/1", "row/2"]
    assert found["total"] == 2


def test_bytes_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path, sample(1))
    file.write_bytes(b"\xff\xfe\n" + file.read_bytes() + b"\x00")
    assert ids(find_samples(file)) == ["row/1"]


def test_a_file_is_parsed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, *(sample(n) for n in range(5)))
    parsed: list[bytes] = []
    loads = orjson.loads

    def counted(line: bytes) -> object:
        parsed.append(line)
        return loads(line)

    monkeypatch.setattr(orjson, "loads", counted)
    find_samples(file, limit=1)
    assert len(parsed) == 5 + 1
    find_samples(file, limit=1, offset=1, search="after")
    assert len(parsed) == 5 + 1 + 1
    # As long as before and, on a coarse clock, as old: another file all the same.
    stat = file.stat()
    new = tmp_path / "new"
    new.mkdir()
    write(new, *(sample(n + 3) for n in range(5))).replace(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    assert ids(find_samples(file, search="row/3")) == ["row/3"]
