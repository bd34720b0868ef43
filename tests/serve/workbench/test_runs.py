import json
import os
from pathlib import Path
from typing import Any

import pytest

from configs.load import load_config, save_config
from configs.run_directory import RunDirectory, StageName, State
from serve.errors import ApiError
from serve.workbench.runs import MAX_POINTS, RunCard, describe_runs, find_report, find_run

COMPARISON = {
    "verdict": "better",
    "promote": False,
    "reasons": ["No guard task is worse."],
    "tasks": [
        {
            "role": role,
            "delta": delta,
            "interval": [delta - 0.1, delta + 0.1],
            "baseline": {"name": "theirs", "prompts": []},
        }
        for role, delta in (("exploratory", -0.25), ("primary", 0.5), ("primary", 0.75))
    ],
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def make(runs: Path, name: str = "first", **states: State) -> RunDirectory:
    run = RunDirectory(runs / name)
    run.path.mkdir()
    save_config(load_config(Path("configs/demo-legal.yaml")), run.config_file)
    stages: list[StageName] = ["prepare", "train", "merge", "evaluate"]
    for stage in stages:
        if stage in states:
            run.write_record(stage, {"state": states[stage]})
    return run


def put(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def put_history(run: RunDirectory, step: int, history: list[dict[str, Any]]) -> Path:
    state = {"global_step": step, "best_metric": None, "log_history": history}
    return put(run.path / f"checkpoints/checkpoint-{step}/trainer_state.json", state)


def only(runs: Path) -> RunCard:
    [card] = describe_runs(runs, [])
    return card


def test_a_finished_run_is_told_whole(runs: Path) -> None:
    run = make(runs, prepare="done", train="done", merge="done", evaluate="done")
    put(run.path / "evals/comparison.json", COMPARISON)
    for folder in ("data", "train", "merge", "evals"):
        put(run.path / folder / "report.html", "<p>a report</p>")
    put_history(run, 2, [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}])
    make(runs, "second")
    first, second = describe_runs(runs, ["second"])
    assert first == {
        "name": "first",
        "description": "Licence compliance: a licence notice in, its SPDX id and category out.",
        "is_served": False,
        "stages": {"prepare": "done", "train": "done", "merge": "done", "evaluate": "done"},
        "verdict": "better",
        "promote": False,
        "reasons": ["No guard task is worse."],
        "delta": 0.5,
        "interval": (0.4, 0.6),
        "baseline": "theirs",
        "losses": {"train": [(1, 2.5), (2, 2.0)], "validation": []},
        "reports": [
            {"title": "Data", "path": "/workbench/runs/first/data/report.html"},
            {"title": "Training", "path": "/workbench/runs/first/train/report.html"},
            {"title": "Merge", "path": "/workbench/runs/first/merge/report.html"},
            {"title": "Evaluation", "path": "/workbench/runs/first/evals/report.html"},
        ],
    }
    assert (second["name"], second["is_served"]) == ("second", True)
    json.dumps([first, second], allow_nan=False)


def test_a_run_that_has_just_begun_has_no_more_than_its_name(runs: Path) -> None:
    make(runs, prepare="failed")
    card = only(runs)
    assert card["stages"] == {
        "prepare": "failed",
        "train": "not run",
        "merge": "not run",
        "evaluate": "not run",
    }
    empty = ("verdict", "promote", "delta", "interval", "baseline")
    assert {card[name] for name in empty} == {None}  # type: ignore[literal-required]
    assert card["losses"] == {"train": [], "validation": []}
    assert card["reports"] == []


def test_a_stage_runs_only_while_a_process_holds_the_run(runs: Path) -> None:
    run = make(runs, prepare="done", train="running")
    assert only(runs)["stages"]["train"] == "interrupted"
    with run.lock():
        assert only(runs)["stages"]["train"] == "running"


def test_the_lock_of_a_run_where_nothing_runs_is_left_alone(runs: Path) -> None:
    run = make(runs, prepare="done")
    only(runs)
    assert not (run.path / ".lock").exists()


def test_losses_are_those_of_the_newest_checkpoint_up_to_the_end_of_training(runs: Path) -> None:
    run = make(runs)
    put_history(run, 9, [{"step": 1, "loss": 7.0}])
    history: list[dict[str, Any]] = [
        {"step": 1, "loss": 3.0, "epoch": 0.5, "learning_rate": 1e-4},
        {"step": 2, "loss": float("nan")},
        {"step": 2, "eval_loss": 2.5},
        {"step": 10, "loss": 1.0},
        {"step": 10, "train_loss": 2.0},
        {"step": 10, "eval_loss": 0.5},
    ]
    put_history(run, 10, history)
    assert only(runs)["losses"] == {"train": [(1, 3.0), (10, 1.0)], "validation": [(2, 2.5)]}


def test_a_half_written_checkpoint_gives_way_to_the_one_before(runs: Path) -> None:
    run = make(runs)
    put_history(run, 5, [{"step": 5, "loss": 1.5}])
    put(run.path / "checkpoints/checkpoint-10/trainer_state.json", '{"log_history": [{"st')
    (run.path / "checkpoints/checkpoint-12").mkdir()
    assert only(runs)["losses"]["train"] == [(5, 1.5)]


def test_losses_are_read_anew_when_training_has_gone_on(runs: Path) -> None:
    run = make(runs)
    file = put_history(run, 5, [{"step": 5, "loss": 1.5}])
    before = file.stat()
    assert only(runs)["losses"]["train"] == [(5, 1.5)]
    put_history(run, 5, [{"step": 5, "loss": 2.5}])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert only(runs)["losses"]["train"] == [(5, 2.5)]


def test_a_long_curve_is_thinned(runs: Path) -> None:
    run = make(runs)
    put_history(run, 5, [{"step": step, "loss": 1.0} for step in range(1, 5000)])
    assert MAX_POINTS / 2 <= len(only(runs)["losses"]["train"]) <= MAX_POINTS


@pytest.mark.parametrize(
    "broken",
    [
        "",
        '{"verdict": "better"',
        "[]",
        "\ud800",
        {**COMPARISON, "tasks": []},
        {**COMPARISON, "tasks": [{"role": "primary"}]},
        json.dumps(COMPARISON).replace("0.5", "NaN"),
        {**COMPARISON, "verdict": None},
    ],
)
def test_a_broken_result_leaves_the_rest_of_the_card(runs: Path, broken: object) -> None:
    run = make(runs, evaluate="done")
    file = put(run.path / "evals/comparison.json", "")
    text = broken if isinstance(broken, str) else json.dumps(broken)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    card = only(runs)
    assert (card["verdict"], card["delta"], card["baseline"]) == (None, None, None)
    assert card["stages"]["evaluate"] == "done"


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"stages": []}', '{"stages": {"train": {}}}'])
def test_a_broken_manifest_leaves_the_rest_of_the_card(runs: Path, broken: str) -> None:
    run = make(runs)
    put(run.manifest_file, broken)
    put(run.path / "evals/comparison.json", COMPARISON)
    card = only(runs)
    assert set(card["stages"].values()) == {"not run"}
    assert card["verdict"] == "better"


def test_a_broken_configuration_leaves_the_run_in_the_list(runs: Path) -> None:
    make(runs, "broken").config_file.write_text("name: [")
    (make(runs, "folder").path / "manifest.json").mkdir()
    make(runs, "whole")
    told = {card["name"]: bool(card["description"]) for card in describe_runs(runs, [])}
    assert told == {"broken": False, "folder": True, "whole": True}


def test_folders_that_are_no_runs_are_not_listed(runs: Path) -> None:
    put(runs / "other/notes.txt", "nothing")
    assert describe_runs(runs, []) == []
    assert describe_runs(runs / "gone", []) == []


def test_names_are_quoted_in_links(runs: Path) -> None:
    run = make(runs, 'a b#?"')
    put(run.path / "data/report.html", "")
    [report] = only(runs)["reports"]
    assert report["path"] == "/workbench/runs/a%20b%23%3F%22/data/report.html"


def test_a_report_is_found_by_its_runs_name_and_its_folder(runs: Path) -> None:
    report = put(make(runs).path / "evals/report.html", "a report")
    assert find_report(runs, "first", "evals") == report
    assert find_run(runs, "first") == runs / "first"


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("gone", "evals"),
        ("first", "merge"),
        ("first", "secret"),
        ("first", "../outside"),
        ("first", "."),
        ("..", "outside"),
        ("", "outside"),
        (".", "outside"),
        ("first/../first", "evals"),
        ("../runs/first", "evals"),
        ("first\0", "evals"),
    ],
)
def test_nothing_else_is_handed_out(runs: Path, name: str, stage: str) -> None:
    run = make(runs)
    for folder in (run.path / "evals", run.path / "secret", runs / "outside", runs.parent):
        put(folder / "report.html", "a report")
    put(runs.parent / "outside/report.html", "not of a run")
    with pytest.raises(ApiError) as caught:
        find_report(runs, name, stage)
    assert caught.value.status == 404


def test_a_link_that_leads_out_of_the_run_is_no_report(runs: Path, tmp_path: Path) -> None:
    run = make(runs)
    secret = put(tmp_path / "secret.html", "a secret")
    (run.path / "data").mkdir()
    (run.path / "data/report.html").symlink_to(secret)
    (run.path / "evals").symlink_to(put(tmp_path / "out/report.html", "a secret").parent)
    (run.path / "merge").symlink_to(run.path / "merge")
    for stage in ("data", "evals", "merge"):
        with pytest.raises(ApiError):
            find_report(runs, "first", stage)
    assert only(runs)["reports"] == []
