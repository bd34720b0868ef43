import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import load_config
from configs.run_directory import (
    RECORDED_VERSIONS,
    RunDirectory,
    StageName,
    StageResult,
    create_run,
    hash_json,
    open_run,
    run_stage,
    write_whole,
)
from configs.status import stage_state
from tests.configs.minimal import write_config
from tests.configs.stage_process import SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(load_config(write_config(tmp_path)), tmp_path / "runs")


class Stage:
    """A stage that writes given text; counts how often it worked, and whether it was resumed."""

    def __init__(self, run: RunDirectory, name: StageName, output: str, *after: StageName) -> None:
        self.run, self.name, self.output, self.after = run, name, output, after
        self.resumed: list[bool] = []

    def __call__(
        self, text: str, *, fails: BaseException | None = None, **settings: object
    ) -> StageResult:
        def work(resume: bool) -> dict[str, Any]:
            self.resumed.append(resume)
            if fails:
                raise fails
            file = self.run.path / self.output
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            return {"length": len(text)}

        return run_stage(
            self.run,
            self.name,
            settings=settings,
            after=self.after,
            outputs=[self.output.split("/")[0]],
            seed=17,
            work=work,
        )


@contextmanager
def child(action: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has begun `action`; killed with SIGKILL when the block ends."""
    command = [sys.executable, "-m", "tests.configs.stage_process", action, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the process ended before it began its work"
            yield process
        finally:
            process.kill()
            assert process.wait() == -signal.SIGKILL


# Creating and opening.


def test_the_run_directory_holds_the_complete_configuration(
    run: RunDirectory, tmp_path: Path
) -> None:
    config = load_config(tmp_path / "minimal.yaml")
    assert run.path == tmp_path / "runs" / "minimal"
    assert run.load_config() == config
    assert "max_grad_norm: 1.0" in run.config_file.read_text()
    assert open_run(run.path).load_config() == config


def test_creating_again_keeps_the_file_and_takes_over_changes(
    run: RunDirectory, tmp_path: Path
) -> None:
    before = run.config_file.stat()
    create_run(load_config(tmp_path / "minimal.yaml"), tmp_path / "runs")
    assert run.config_file.stat().st_mtime_ns == before.st_mtime_ns
    assert run.config_file.stat().st_ino == before.st_ino
    create_run(
        load_config(write_config(tmp_path, ("num_steps: 3", "num_steps: 4"))), tmp_path / "runs"
    )
    assert run.load_config().train.num_steps == 4


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run directory \(it has no config.yaml\)") as caught:
        open_run(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_run_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot make the run directory: Not a directory"):
        create_run(load_config(write_config(tmp_path)), tmp_path / "runs")


# When a stage is skipped.


def test_training_runs_again_only_for_rows_that_it_reads(run: RunDirectory) -> None:
    rows = {"train": "t", "validation": "v", "test": "s"}

    def prepare(**changed: str) -> None:
        def work(resume: bool) -> dict[str, Any]:
            (run.path / "data").mkdir(exist_ok=True)
            for name, text in (rows | changed).items():
                (run.path / "data" / f"{name}.parquet").write_text(text)
            return {}

        run_stage(run, "prepare", settings=changed, after=[], outputs=["data"], seed=1, work=work)

    train = Stage(run, "train", "adapter/a.txt", "prepare")
    merge = Stage(run, "merge", "artefacts/m.txt", "prepare")
    evaluate = Stage(run, "evaluate", "evals/e.txt", "prepare")
    prepare()
    assert not train("a").skipped
    assert not merge("m").skipped
    assert not evaluate("e").skipped
    prepare(test="another")
    assert train("a").skipped
    assert merge("m").skipped
    assert not evaluate("e").skipped
    for name in ("train", "validation"):
        # This side alone differs from what was read before.
        prepare()
        train("a")
        merge("m")
        prepare(**{name: "another"})
        assert not train("a").skipped
        assert not merge("m").skipped


def test_a_stage_is_skipped_when_nothing_changed(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    first = prepare("rows", fraction=0.1)
    again = prepare("never written", fraction=0.1)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.facts == first.facts == {"length": 4}
    assert again.seconds == first.seconds
    assert (run.path / "data/rows.txt").read_text() == "rows"
    assert prepare.resumed == [False]


def test_changed_settings_run_it_from_the_start(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    prepare("rows", fraction=0.1)
    assert not prepare("other", fraction=0.2).skipped
    assert prepare.resumed == [False, False]
    assert prepare("other", fraction=0.2).skipped


def test_the_order_of_settings_does_not_matter(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    prepare("rows", a=1, b={"c": 2, "d": 3})
    assert prepare("rows", b={"d": 3, "c": 2}, a=1).skipped


@pytest.mark.parametrize("damage", ["rewritten", "removed", "grown"])
def test_a_changed_output_file_runs_it_again(run: RunDirectory, damage: str) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    prepare("rows")
    file = run.path / "data/rows.txt"
    if damage == "removed":
        file.unlink()
    else:
        time.sleep(0.01)
        file.write_text("rowz" if damage == "rewritten" else "rows and more")
    result = prepare("rows")
    assert not result.skipped
    assert file.read_text() == "rows"
    # The earlier attempt had the same inputs: what it left may be used.
    assert prepare.resumed == [False, True]


def test_a_stage_runs_again_when_an_upstream_output_changed(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    train = Stage(run, "train", "adapter/weights", "prepare")
    prepare("rows", fraction=0.1)
    train("weights")
    assert train("weights").skipped
    prepare("other rows", fraction=0.2)
    assert not train("weights").skipped
    assert train.resumed == [False, False]


def test_an_upstream_stage_that_ends_with_equal_output_stops_the_chain_there(
    run: RunDirectory,
) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    train = Stage(run, "train", "adapter/weights", "prepare")
    merge = Stage(run, "merge", "merged/weights", "train")
    prepare("rows", fraction=0.1)
    train("weights")
    merge("merged")
    assert not prepare("rows", fraction=0.2).skipped
    assert train("weights").skipped
    assert merge("merged").skipped


def test_a_stage_whose_upstream_is_unfinished_is_refused(run: RunDirectory) -> None:
    train = Stage(run, "train", "adapter/weights", "prepare")
    with pytest.raises(UserError, match="stage prepare has not finished in this run") as caught:
        train("weights")
    assert caught.value.remedy == (
        f"run `tunery prepare {run.config_file}` first, or `tunery run` for all"
    )
    assert train.resumed == []
    prepare = Stage(run, "prepare", "data/rows.txt")
    with pytest.raises(RuntimeError):
        prepare("rows", fails=RuntimeError("no"))
    with pytest.raises(UserError, match="stage prepare has not finished"):
        train("weights")


def test_a_stage_that_does_not_make_its_output_is_our_own_fault(run: RunDirectory) -> None:
    with pytest.raises(AssertionError, match="the stage did not make data"):
        run_stage(
            run, "prepare", settings={}, after=(), outputs=["data"], seed=1, work=lambda resume: {}
        )
    assert run.read_manifest()["prepare"]["state"] != "done"


def test_the_record_tells_inputs_outputs_versions_and_seed(run: RunDirectory) -> None:
    Stage(run, "prepare", "data/rows.txt")("rows", fraction=0.1)
    record = run.read_manifest()["prepare"]
    assert record["state"] == "done"
    assert record["inputs"]["settings"] == {"fraction": 0.1}
    assert record["inputs_sha256"] == hash_json(record["inputs"])
    assert record["outputs"]["data/rows.txt"]["num_bytes"] == 4
    assert record["outputs"]["data/rows.txt"]["sha256"] == (
        # printf rows | sha256sum
        "bc51e9e65d79e1c90ba544ab2eae1044ccdf8c1af7a559ba375cba4276f7d99e"
    )
    assert set(record["versions"]) == set(RECORDED_VERSIONS)
    assert record["seed"] == 17
    assert record["started"] <= record["finished"]


# After a failure or a kill.


def test_a_failure_is_recorded_and_the_next_attempt_resumes(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    with pytest.raises(UserError, match="the disk is full"):
        prepare("rows", fails=UserError("the disk is full"))
    record = run.read_manifest()["prepare"]
    assert (record["state"], record["error"]) == ("failed", "the disk is full")
    assert not prepare("rows").skipped
    assert prepare.resumed == [False, True]
    assert prepare("rows").skipped


def test_an_attempt_with_other_settings_does_not_resume(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    with pytest.raises(RuntimeError):
        prepare("rows", fails=RuntimeError("no"), fraction=0.1)
    prepare("rows", fraction=0.2)
    assert prepare.resumed == [False, False]


def test_an_interrupt_from_the_keyboard_is_a_failure_with_a_name(run: RunDirectory) -> None:
    prepare = Stage(run, "prepare", "data/rows.txt")
    with pytest.raises(KeyboardInterrupt):
        prepare("rows", fails=KeyboardInterrupt())
    assert run.read_manifest()["prepare"]["error"] == "KeyboardInterrupt"


def test_a_killed_stage_is_interrupted_unlocked_and_resumed(
    run: RunDirectory, tmp_path: Path
) -> None:
    with child("work", tmp_path):
        record = run.read_manifest()["prepare"]
        assert run.is_locked()
        assert stage_state(record, is_locked=run.is_locked()) == "running"
        with pytest.raises(UserError, match="another process is working on this run"), run.lock():
            pass
    assert (run.path / "halfway.txt").read_text() == "resume=False"
    assert not run.is_locked()
    record = run.read_manifest()["prepare"]
    assert record["state"] == "running"
    assert stage_state(record, is_locked=run.is_locked()) == "interrupted"
    prepare = Stage(run, "prepare", "data/rows.txt")
    with run.lock():
        assert not prepare("rows", rows=SETTINGS["rows"]).skipped
    assert prepare.resumed == [True]
    assert run.read_manifest()["prepare"]["state"] == "done"


def test_a_killed_stage_with_changed_settings_starts_anew(
    run: RunDirectory, tmp_path: Path
) -> None:
    with child("work", tmp_path):
        pass
    prepare = Stage(run, "prepare", "data/rows.txt")
    prepare("rows", rows=4)
    assert prepare.resumed == [False]


def test_the_manifest_is_whole_at_every_moment(run: RunDirectory, tmp_path: Path) -> None:
    seen: set[int] = set()
    with child("write", tmp_path):
        deadline = time.monotonic() + 30
        while len(seen) < 100 and time.monotonic() < deadline:
            seen.add(
                json.loads(run.manifest_file.read_text())["stages"]["prepare"]["facts"]["number"]
            )
    # Killed in the middle of writing: the last whole one stands.
    last = run.read_manifest()["prepare"]["facts"]
    assert len(last["filler"]) == 200_000 + 997 * (last["number"] % 50)
    assert len(seen) > 10


def test_a_damaged_manifest_is_told(run: RunDirectory) -> None:
    for damaged in ('{"stages": {"prep', "[]", "{}", "\xff"):
        run.manifest_file.write_bytes(damaged.encode("latin-1"))
        with pytest.raises(UserError, match="the manifest is damaged") as caught:
            run.read_manifest()
        assert caught.value.where == str(run.manifest_file)


def test_writing_one_record_keeps_the_others(run: RunDirectory) -> None:
    Stage(run, "prepare", "data/rows.txt")("rows")
    before = run.read_manifest()["prepare"]
    Stage(run, "train", "adapter/weights", "prepare")("weights")
    assert run.read_manifest()["prepare"] == before
    assert list(run.read_manifest()) == ["prepare", "train"]


def test_write_whole_leaves_no_partial_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "old")
    write_whole(tmp_path / "a.json", "né")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "né"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_the_lock_can_be_taken_again_after_it_was_let_go(run: RunDirectory) -> None:
    with run.lock():
        assert run.is_locked()
    with run.lock():
        pass
    assert not run.is_locked()
