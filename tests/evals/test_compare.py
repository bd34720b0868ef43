import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import save_config
from configs.schema import RunConfig
from data.conversation import question_and_answer
from evals.compare import evaluate
from evals.results import ComparisonResult
from evals.targets import Target
from tests.evals.conftest import BuildConfig, chapter_rows, reply, write_rows
from tests.evals.loopback_host import LoopbackHost, run_host

ROOT = Path(__file__).parents[2]


@pytest.fixture
def host() -> Iterator[LoopbackHost]:
    with run_host(LoopbackHost(reply=reply)) as host:
        yield host


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "test_file": write_rows(tmp_path / "test.parquet", chapter_rows(0, 50)),
        "train_file": write_rows(tmp_path / "train.parquet", chapter_rows(1000, 30)),
    }


def run(
    config: RunConfig, host: LoopbackHost, folder: Path, files: dict[str, Path], **more: object
) -> ComparisonResult:
    arguments: dict[str, Any] = {
        "variant": Target("icd, tuned", host.base_url, "variant"),
        "baseline": Target("tiny", host.base_url, "base"),
        **files,
        **more,
    }
    return evaluate(config=config, folder=folder, **arguments)


def test_both_sides_are_asked_and_the_verdict_is_written(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    seen: list[tuple[int, int]] = []
    config = build_config(max_connections=4)
    result = run(
        config, host, tmp_path / "evals", files, progress=lambda done, of: seen.append((done, of))
    )
    (task,) = result["tasks"]
    # By the loopback host's rules, over the numbers 0 to 39.
    assert [(p["prompt"], p["num_correct"]) for p in task["baseline"]["prompts"]] == [
        ("zero-shot", 0),
        ("4 examples", 10),
    ]
    assert task["variant"]["num_correct"] == 36
    assert (task["num_won"], task["num_lost"], task["verdict"]) == (28, 2, "better")
    assert task["num_answers_changed"] == 40
    assert json.loads((tmp_path / "evals" / "comparison.json").read_text()) == result
    assert "Better: +65.0 points" in (tmp_path / "evals" / "report.html").read_text()
    logs = sorted(path.name for path in (tmp_path / "evals" / "logs").iterdir())
    assert logs == ["baseline-4-examples", "baseline-zero-shot", "variant-zero-shot"]
    assert seen[0] == (0, 120)
    assert seen[-1] == (120, 120)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {path.suffix for path in (tmp_path / "evals").iterdir()} == {".json", ".html", ""}


def test_both_sides_see_the_same_messages(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    run(build_config(num_samples=6), host, tmp_path / "evals", files)
    asked: dict[str, list[Any]] = {"base": [], "variant": []}
    shown = []
    for body in host.requests:
        if len(body["messages"]) > 1:
            shown.append(body["messages"])
        else:
            asked[body["model"]].append(body["messages"])
    assert asked["base"] == asked["variant"]
    assert [m[0]["content"] for m in asked["base"]] == [
        f"Diagnosis: term {n}. Which chapter?" for n in range(6)
    ]
    assert len(shown) == 6
    assert {len(messages) for messages in shown} == {9}
    assert {json.dumps(messages[:8]) for messages in shown} == {json.dumps(shown[0][:8])}


def test_no_examples_means_one_prompt(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    config = build_config(num_samples=12, num_examples=0)
    (task,) = run(config, host, tmp_path / "evals", files)["tasks"]
    assert [p["prompt"] for p in task["baseline"]["prompts"]] == ["zero-shot"]
    assert len(host.requests) == 24


def test_fewer_rows_than_asked_for_are_all_asked(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    few = {**files, "test_file": write_rows(tmp_path / "few.parquet", chapter_rows(0, 5))}
    config = build_config(num_examples=0)
    (task,) = run(config, host, tmp_path / "evals", few)["tasks"]
    assert task["num_samples"] == 5
    one = {**files, "test_file": write_rows(tmp_path / "one.parquet", chapter_rows(0, 1))}
    with pytest.raises(UserError, match="at least two test rows; there are 1"):
        run(config, host, tmp_path / "other", one)


def test_an_adapter_that_does_not_act_is_found_out(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    silent = Target("icd, tuned", host.base_url, "base")
    config = build_config(num_samples=8, num_examples=0)
    with pytest.raises(UserError, match="the adapter is not acting") as caught:
        run(config, host, tmp_path / "evals", files, variant=silent)
    assert "model base" in (caught.value.where or "")
    assert [path.name for path in (tmp_path / "evals").iterdir()] == ["logs"]
    # A hosted model may well answer the same; that proves nothing about an adapter.
    hosted = {"kind": "hosted", "base_url": host.base_url, "model": "base", "api_key_env": "KEY"}
    config = build_config(num_samples=8, num_examples=0, baseline=hosted)
    (task,) = run(config, host, tmp_path / "hosted", files, variant=silent)["tasks"]
    assert task["num_answers_changed"] == 0


def test_a_training_row_that_asks_a_test_question_stops_it_before_asking(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    leaking = [
        question_and_answer("Diagnosis: term 3. Which chapter?", f"answer {n}", id=f"leak/{n}")
        for n in range(4)
    ]
    train_file = write_rows(tmp_path / "leak.parquet", leaking)
    with pytest.raises(UserError, match=r"leak/\d asks the same question as the test row icd/3"):
        run(build_config(), host, tmp_path / "evals", {**files, "train_file": train_file})
    assert host.requests == []


def test_a_host_that_goes_away_leaves_no_result(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    away = Target("icd, tuned", host.base_url, "variant", api_key="sk-wrong")
    host.key = "no-key"
    with pytest.raises(UserError, match=r"icd, tuned \(model variant\) did not answer"):
        run(build_config(num_samples=4), host, tmp_path / "evals", files, variant=away)
    assert [path.name for path in (tmp_path / "evals").iterdir()] == ["logs"]


EVALUATE = """
import sys
from pathlib import Path
from configs.load import load_config
from evals.compare import evaluate
from evals.targets import Target

folder, base_url = Path(sys.argv[1]), sys.argv[2]
evaluate(
    config=load_config(folder / "config.yaml"),
    variant=Target("icd, tuned", base_url, "variant"),
    baseline=Target("tiny", base_url, "base"),
    test_file=folder / "test.parquet",
    train_file=folder / "train.parquet",
    folder=folder / "evals",
    progress=lambda done, of: print(done, flush=True),
)
"""


def test_a_killed_evaluation_ends_with_the_same_bytes(
    host: LoopbackHost, tmp_path: Path, files: dict[str, Path], build_config: BuildConfig
) -> None:
    config = build_config(num_samples=12)
    save_config(config, tmp_path / "config.yaml")
    host.hang_after = 17
    command = [sys.executable, "-c", EVALUATE, str(tmp_path), host.base_url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line.strip() == "17" for line in process.stdout)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [path.name for path in (tmp_path / "evals").iterdir()] == ["logs"]
    host.hang_after = None
    run(config, host, tmp_path / "evals", files)
    assert sum(host.answered.values()) == 36
    run(config, host, tmp_path / "whole", files)
    resumed, whole = (
        (tmp_path / name / "comparison.json").read_bytes() for name in ("evals", "whole")
    )
    assert resumed == whole
