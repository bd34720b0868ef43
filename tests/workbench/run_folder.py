"""Two finished runs as a run directory holds them, one of which says hostile things everywhere."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.load import save_config
from configs.run_directory import STAGES, RunDirectory, StageRecord
from configs.schema import RunConfig
from data.compared_samples import SAMPLES_FILE, ComparedSample
from tests.workbench.hostile import ALL, NAME, PWN

RUN = "tiny-run"
HOSTILE_RUN = "hostile-run"
REPORT_FOLDERS = ("data", "train", "merge", "evals")
QUESTION = "How long is the river?"
REFERENCE = "Nine hundred kilometres."
ANSWERS = ("About ninety kilometres.", "About nine hundred kilometres.")


def write_runs(folder: Path) -> None:
    """Both runs, and a folder beside them whose name is hostile."""
    _write_run(folder, RUN, "What a river says.", report="<h1>Report</h1>", samples=_samples())
    _write_run(folder, HOSTILE_RUN, ALL, report=_hostile_report(), samples=[_hostile_sample()])
    (folder / NAME.replace("/", "")).mkdir()


def _write_run(
    folder: Path, name: str, description: str, *, report: str, samples: Sequence[ComparedSample]
) -> None:
    path = folder / name
    path.mkdir()
    config: dict[str, Any] = {
        "name": name,
        "description": description,
        "model": {
            "name": "tiny-base",
            "licence": "MIT",
            "source": {"kind": "folder", "path": "base"},
        },
        "data": {"source": {"kind": "icd10_chapters"}},
        "train": {"num_steps": 4},
        "evaluation": {"task": "rivers", "num_samples": 40},
    }
    save_config(RunConfig.model_validate(config), path / "config.yaml")
    run = RunDirectory(path)
    for stage in STAGES:
        run.write_record(stage, StageRecord(state="done", facts={}))
    for part in REPORT_FOLDERS:
        (path / part).mkdir()
        (path / part / "report.html").write_text(
            f"<!doctype html><title>{part}</title>{report}", encoding="utf-8"
        )
    _write_losses(path)
    is_hostile = name == HOSTILE_RUN
    _write_json(path / "evals" / "comparison.json", _comparison(name, is_hostile=is_hostile))
    lines = (json.dumps(sample) + "\n" for sample in samples)
    (path / "evals" / SAMPLES_FILE).write_text("".join(lines), encoding="utf-8")


def _write_losses(run: Path) -> None:
    history = [{"step": step, "loss": 3.0 / step} for step in range(1, 5)]
    history.append({"step": 4, "eval_loss": 0.9})
    folder = run / "checkpoints" / "checkpoint-4"
    folder.mkdir(parents=True)
    _write_json(folder / "trainer_state.json", {"global_step": 4, "log_history": history})
    (folder / "complete").touch()


def _comparison(name: str, *, is_hostile: bool) -> dict[str, Any]:
    """The parts of the file that say how the comparison went."""
    baseline = NAME if is_hostile else "tiny-base"
    task = {
        "name": NAME if is_hostile else "rivers",
        "role": "primary",
        "baseline": {"name": baseline, "model": baseline, "score": 0.25},
        "variant": {"name": name, "model": name, "score": 0.5},
        "delta": 0.25,
        "interval": [0.125, 0.375],
        "verdict": "better",
    }
    return {"run": name, "verdict": "better", "promote": True, "reasons": [], "tasks": [task]}


def _samples() -> list[ComparedSample]:
    outcomes = ("won", "lost", "both_wrong", "both_right")
    return [
        ComparedSample(
            id=f"rivers/{number}",
            task="rivers" if number < 30 else "stones",
            outcome=outcomes[number % 4],  # type: ignore[typeddict-item]
            messages=[
                {"role": "system", "content": "You know rivers."},
                {"role": "user", "content": f"{QUESTION} Number {number}."},
            ],
            reference=REFERENCE,
            baseline={"name": "tiny-base", "text": ANSWERS[0], "score": 0.0},
            variant={"name": RUN, "text": ANSWERS[1], "score": 1.0},
        )
        for number in range(40)
    ]


def _hostile_sample() -> ComparedSample:
    return ComparedSample(
        id=NAME,
        task=NAME,
        outcome="won",
        messages=[{"role": "system", "content": ALL}, {"role": "user", "content": ALL}],
        reference=ALL,
        baseline={"name": NAME, "text": ALL, "score": 0.0},
        variant={"name": NAME, "text": ALL, "score": 1.0},
    )


def _hostile_report() -> str:
    """A report that tries for the page's key, its opener and its interface."""
    reach = "localStorage.getItem('a'); opener.__pwned = 1; fetch('/v1/models')"
    return (
        f"<script>try {{ {PWN}; {reach} }} catch (error) {{ window.name = `${{error}}` }}</script>"
    )


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")
