"""The command as a user meets it: what is wrong ends as one message, never as a traceback."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import tunery as main_module
from configs.load import load_config
from configs.run_directory import StageRecord, create_run, open_run
from tests.data.cast_votes import cast, keep
from tests.evals.report import factories

ROOT = Path(__file__).parent.parent


def tunery(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "tunery", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_told(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error ")
    for part in parts:
        assert part in result.stderr


@pytest.fixture
def config_file(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A variant on the tiny model whose rows stand in rows.jsonl beside it."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"""
name: tiny
description: A test.
model:
  name: tiny
  licence: MIT
  source: {{kind: folder, path: {tiny_checkpoint}}}
  max_length: 96
data:
  source: {{kind: files, path: rows.jsonl}}
  test_fraction: 0.2
  validation_fraction: 0.2
train: {{num_steps: 2}}
evaluation: {{task: test}}
"""
    )
    write_rows(tmp_path / "rows.jsonl", 60)
    return file


def write_rows(file: Path, num_rows: int) -> None:
    row = '{"prompt": "Which colour is number %d?", "completion": "The answer is blue."}\n'
    file.write_text("".join(row % number for number in range(num_rows)))


def test_help_names_each_command_without_loading_a_stage() -> None:
    result = tunery("--help")
    assert result.returncode == 0
    for name in ("run", "prepare", "train", "merge", "evaluate", "serve", "chat", "status"):
        assert f" {name} " in result.stdout
    heavy = ("torch", "pydantic", "rich")
    code = f"import sys, tunery; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_missing_configuration_names_the_nearest() -> None:
    assert_told(tunery("run", "configs/demo-lgal.yaml"), "not found", "configs/demo-legal.yaml")


def test_unknown_key_names_file_line_and_nearest(config_file: Path) -> None:
    config_file.write_text(config_file.read_text().replace("num_steps", "num_stps"))
    assert_told(tunery("run", str(config_file)), "train.num_stps", "tiny.yaml:13", "`num_steps`")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert_told(tunery("serve", str(tmp_path)), "not a run directory", str(tmp_path))


def test_status_without_runs(tmp_path: Path) -> None:
    assert_told(tunery("status", "--runs", str(tmp_path)), "no runs there")


def test_missing_data_file(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").unlink()
    runs = tmp_path / "runs"
    result = tunery("prepare", str(config_file), "--runs", str(runs))
    assert_told(result, "cannot read the data file", "rows.jsonl")


def test_stage_before_its_turn_names_the_one_to_run_first(
    config_file: Path, tmp_path: Path
) -> None:
    result = tunery("train", str(config_file), "--runs", str(tmp_path / "runs"))
    assert_told(result, "stage prepare has not finished", "tunery prepare")


def test_too_few_rows_for_a_test_set(config_file: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    result = tunery("prepare", str(config_file), "--runs", str(tmp_path / "runs"))
    assert_told(result, "the split has no", "data.test_fraction")
    assert not (tmp_path / "runs" / "tiny" / "data").exists()


def test_rows_without_an_assistant_turn(config_file: Path, tmp_path: Path) -> None:
    line = '{"messages": [{"role": "user", "content": "Hello?"}]}\n'
    (tmp_path / "rows.jsonl").write_text(line * 5)
    result = tunery("prepare", str(config_file), "--runs", str(tmp_path / "runs"))
    assert_told(result, "of the first 5 rows 5 are not: no assistant turn", "rows.jsonl")


def test_rows_cut_so_that_nothing_is_supervised(config_file: Path, tmp_path: Path) -> None:
    config_file.write_text(config_file.read_text().replace("max_length: 96", "max_length: 16"))
    result = tunery("prepare", str(config_file), "--runs", str(tmp_path / "runs"))
    assert_told(result, "60 × cut to 16 tokens, no assistant turn is left")


def test_missing_key_of_the_hosted_service_is_told_before_any_work(
    config_file: Path, tmp_path: Path
) -> None:
    hosted = "{kind: hosted, base_url: 'https://example.org', model: m, api_key_env: NO_SUCH_KEY}"
    text = config_file.read_text().replace("{task: test}", f"{{task: test, baseline: {hosted}}}")
    config_file.write_text(text)
    result = tunery("run", str(config_file), "--runs", str(tmp_path / "runs"))
    assert_told(result, "NO_SUCH_KEY is not set", "export NO_SUCH_KEY")
    assert not (tmp_path / "runs" / "tiny" / "data").exists()


def test_prepare_then_train_then_skip(config_file: Path, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    assert "done in" in tunery("prepare", str(config_file), *runs).stdout
    assert "unchanged, skipped" in tunery("prepare", str(config_file), *runs).stdout
    assert "done in" in tunery("train", "tiny", *runs).stdout
    assert "unchanged, skipped" in tunery("train", "tiny", *runs).stdout
    write_rows(tmp_path / "rows.jsonl", 61)
    assert "done in" in tunery("prepare", str(config_file), *runs).stdout
    status = tunery("status", *runs).stdout
    assert "tiny" in status
    assert "done" in status


# The evaluation.


def evaluated(config_file: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """A run whose evaluation is finished and has come to the result that `name` builds."""
    result, _ = getattr(factories, name)()
    config = load_config(config_file)
    run = create_run(config, runs)
    for stage in ("prepare", "merge"):
        run.write_record(stage, StageRecord(state="done", outputs={}, outputs_sha256=stage))

    def leave_result(*_: object, **__: object) -> dict[str, object]:
        (run.path / "evals").mkdir(exist_ok=True)
        for file in ("comparison.json", "report.html", "report.md", "samples.jsonl"):
            (run.path / "evals" / file).write_text(json.dumps(result))
        own = result["tasks"][0]
        return {
            "verdict": result["verdict"],
            "promote": result["promote"],
            "num_samples": own["num_samples"],
        }

    monkeypatch.setattr("evals.stage.evaluate_run", leave_result)
    assert not main_module.work_stage("evaluate", run, config, Console(quiet=True)).skipped
    return run.path


@pytest.mark.parametrize(("name", "status"), [("minimal", 0), ("realistic", 3)])
def test_the_gate_tells_a_pipeline_whether_to_promote(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: int
) -> None:
    runs = tmp_path / "runs"
    evaluated(config_file, runs, monkeypatch, name)
    plain = tunery("evaluate", str(config_file), "--runs", str(runs))
    gated = tunery("evaluate", "tiny", "--gate", "--runs", str(runs))
    for result in (plain, gated):
        assert result.stderr == ""
        assert "unchanged, skipped" in result.stdout
        told = "verdict  better: do not promote" if status else "verdict  better: promote"
        assert told in result.stdout
    assert (plain.returncode, gated.returncode) == (0, status)


def test_a_recording_of_other_content_is_evaluated_anew(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = tmp_path / "kept.jsonl"
    recording.write_text("one")
    recorded = f"baseline: {{kind: recorded, path: {recording}}}"
    text = config_file.read_text().replace("{task: test}", f"{{task: test, {recorded}}}")
    config_file.write_text(text)
    run = open_run(evaluated(config_file, tmp_path / "runs", monkeypatch, "minimal"))

    def is_skipped() -> bool:
        return main_module.work_stage(
            "evaluate", run, run.load_config(), Console(quiet=True)
        ).skipped

    assert is_skipped()
    recording.write_text("two")
    assert not is_skipped()
    assert is_skipped()


def test_new_votes_are_evaluated_anew_and_none_change_nothing(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(evaluated(config_file, tmp_path / "runs", monkeypatch, "minimal"))

    def is_skipped() -> bool:
        return main_module.work_stage(
            "evaluate", run, run.load_config(), Console(quiet=True)
        ).skipped

    assert "votes" not in run.read_manifest()["evaluate"]["inputs"]["settings"]
    assert is_skipped()
    keep(run.path / "serve" / "votes.jsonl", [cast()])
    assert not is_skipped()
    assert is_skipped()
    keep(run.path / "serve" / "votes.jsonl", [cast(number=1)])
    assert not is_skipped()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["one", "two"], "--compare takes two runs"),
        (["one", "--compare"], "--compare takes two runs"),
        (["one", "--record", "x", "--limit", "5"], "are for one each"),
        (["one", "two", "--compare", "--limit", "5"], "are for one each"),
        (["one", "two", "--compare", "--record", "x"], "are for one each"),
        (["one", "--record", "x", "--gate"], "--gate needs a verdict"),
        (["one", "--limit", "1"], "--limit"),
    ],
)
def test_options_of_the_evaluation_that_exclude_each_other_are_told(
    arguments: list[str], told: str
) -> None:
    result = CliRunner().invoke(main_module.app, ["evaluate", *arguments])
    assert result.exit_code == 2
    assert told in result.output


def test_only_a_hosted_baseline_is_recorded(config_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    runs = str(tmp_path / "runs")
    result = tunery("evaluate", str(config_file), "--record", str(file), "--runs", runs)
    assert_told(result, "only a hosted baseline can be recorded", "kind base")
    assert not file.exists()


def test_a_pilot_needs_what_is_served(config_file: Path, tmp_path: Path) -> None:
    result = tunery("evaluate", str(config_file), "--limit", "5", "--runs", str(tmp_path / "runs"))
    assert_told(result, "stage merge has not finished", "tunery merge")


def test_full_disk_is_a_message(config_file: Path, tmp_path: Path) -> None:
    """A file-size limit makes writes fail as a full disk does, wherever they happen."""
    # Of bf16 weights no quantized copy is made, which would be written or not as the cache has it.
    plain = config_file.read_text().replace("num_steps: 2", "num_steps: 2, quantization: none")
    config_file.write_text(plain)
    runs = tmp_path / "runs"
    tunery("prepare", str(config_file), "--runs", str(runs))
    code = (
        "import resource, signal, sys, tunery\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.argv = ['tunery', 'train', 'tiny', '--runs', {str(runs)!r}]\n"
        "tunery.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert_told(result, "disk is full", "free some space")
    assert not (runs / "tiny" / "adapter").exists()


def test_plan_says_what_a_24b_needs_before_anything_is_downloaded() -> None:
    result = tunery("plan", "configs/legal.yaml", "--gpu", "24GiB", "--json")
    plan = json.loads(result.stdout)
    for key in ("fits", "budget_gib", "peak_gib", "breakdown", "max_length", "tokens_per_second"):
        assert key in plan
    assert {"hours", "disk_gib"} <= plan.keys()
    assert plan["fits"]
    assert sum(plan["breakdown"].values()) == pytest.approx(plan["peak_gib"])
    assert "fits" in tunery("plan", "configs/legal.yaml", "--gpu", "24GiB").stdout
    assert "does not fit" in tunery("plan", "configs/legal.yaml", "--gpu", "12 GB").stdout
    assert_told(tunery("plan", "configs/legal.yaml", "--gpu", "much"), "not an amount of memory")


def test_sigterm_while_training_ends_with_a_status_of_its_own(
    config_file: Path, tmp_path: Path
) -> None:
    config_file.write_text(config_file.read_text().replace("num_steps: 2", "num_steps: 5000"))
    assert tunery("prepare", str(config_file), cwd=tmp_path).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "tunery", "train", str(config_file)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("checkpoint-*/complete")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "the same command goes on from there" in told
    assert "interrupted" in tunery("status", cwd=tmp_path).stdout
