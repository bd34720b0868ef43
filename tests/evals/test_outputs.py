import json
from pathlib import Path

import pytest

from evals.build_result import build_result
from evals.gather import Gathered
from evals.outputs import write_outputs
from evals.targets import Target
from tests.evals.compared import gathered
from tests.evals.report.factories import build_config, build_evidence


@pytest.fixture
def found() -> Gathered:
    found = gathered([build_evidence("a task")])
    found.targets = {
        "base": Target("base", "http://127.0.0.1:47110/v1", "base"),
        "variant": Target("ours", "http://127.0.0.1:47111/v1", "ours", revision="ab" * 32),
        "baseline": Target("theirs", "https://me:secret@host.example/v1", "theirs"),
    }
    return found


def write(folder: Path, found: Gathered) -> None:
    config = build_config()
    result = build_result(found, config=config)
    write_outputs(folder, result, config=config, found=found, commands=["tunery evaluate x"])


def test_reports_tell_who_was_asked_without_ports_keys_or_unknown_hashes(
    found: Gathered, tmp_path: Path
) -> None:
    write(tmp_path, found)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "ab" * 32 in text
        assert text.count("SHA-256 of the ") == 1
        assert "host.example/v1" in text
        assert "secret" not in text
        assert "4711" not in text


def test_nobody_asked_leaves_neither_recordings_nor_a_viewer(
    found: Gathered, tmp_path: Path
) -> None:
    write(tmp_path, found)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["comparison.json", "report.html", "report.md", "samples.jsonl"]
    assert json.loads((tmp_path / "comparison.json").read_text())["run"] == "demo-medical"


def test_the_result_is_written_last_because_it_says_that_all_is_there(
    found: Gathered, tmp_path: Path
) -> None:
    (tmp_path / "report.md").mkdir()
    with pytest.raises(IsADirectoryError):
        write(tmp_path, found)
    assert not (tmp_path / "comparison.json").exists()
