from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from configs.errors import UserError
from configs.load import load_config
from configs.run_directory import StageRecord, create_run
from configs.status import build_status_table, list_runs, stage_state
from tests.configs.minimal import write_config


@pytest.mark.parametrize(
    ("record", "is_locked", "word"),
    [
        (None, False, "-"),
        (None, True, "-"),
        (StageRecord(state="running"), True, "running"),
        (StageRecord(state="running"), False, "interrupted"),
        (StageRecord(state="failed"), False, "failed"),
        (StageRecord(state="done"), True, "done"),
    ],
)
def test_one_word_for_a_stage(record: StageRecord | None, is_locked: bool, word: str) -> None:
    assert stage_state(record, is_locked=is_locked) == word


def show(runs_folder: Path) -> list[list[str]]:
    console = Console(file=StringIO(), width=200, color_system=None)
    console.print(build_status_table(runs_folder))
    assert isinstance(console.file, StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_table_shows_each_run_and_how_far_it_has_come(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = create_run(load_config(write_config(tmp_path)), runs)
    other = write_config(tmp_path, ("name: minimal", "name: a-second"))
    create_run(load_config(other), runs)
    (runs / "not-a-run").mkdir()
    first.write_record("prepare", StageRecord(state="done", seconds=12.4, facts={}))
    first.write_record("train", StageRecord(state="running"))
    first.write_record("merge", StageRecord(state="failed", error="no"))
    first.write_record(
        "evaluate", StageRecord(state="done", seconds=3.0, facts={"verdict": "better"})
    )
    assert [run.path.name for run in list_runs(runs)] == ["a-second", "minimal"]
    assert show(runs) == [
        ["run", "prepare", "train", "merge", "evaluate", "verdict"],
        ["a-second", "-", "-", "-", "-", "-"],
        ["minimal", "done", "12", "s", "interrupted", "failed", "done", "3", "s", "better"],
    ]


def test_a_stage_of_a_living_process_is_running(tmp_path: Path) -> None:
    run = create_run(load_config(write_config(tmp_path)), tmp_path / "runs")
    run.write_record("prepare", StageRecord(state="running"))
    with run.lock():
        assert show(tmp_path / "runs")[1][1] == "running"
    assert show(tmp_path / "runs")[1][1] == "interrupted"


def test_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs there") as caught:
        build_status_table(tmp_path)
    assert caught.value.where == str(tmp_path)
