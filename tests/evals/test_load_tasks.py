import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.schema import RunConfig
from evals.load_tasks import load_tasks, pilot_of
from tests.evals.test_task_rows import Stage, lines


@pytest.fixture
def stage(tmp_path: Path, tiny_checkpoint: Path) -> Stage:
    return Stage(tmp_path, tiny_checkpoint)


@pytest.fixture
def config(stage: Stage) -> RunConfig:
    """Own rows, two further sets that only inform around one that decides, and two guard sets."""

    def further(name: str, *, primary: bool) -> dict[str, Any]:
        source = stage.write(f"{name}.jsonl", lines(name, 30))
        return {"name": name, "primary": primary, "num_samples": 20, "source": source}

    config = stage.config(
        source=stage.write("rows.jsonl", lines("own", 40)),
        evaluation={
            "num_samples": 8,
            "tasks": [
                further("told", primary=False),
                further("decides", primary=True),
                further("told too", primary=False),
            ],
            "guard": {"sets": ["formats", "arithmetic"], "num_samples": 12},
            "num_epochs": 2,
            "temperature": 0.5,
            "seed": 5,
        },
    )
    stage.prepare(config)
    return config


def test_primary_tasks_come_first_and_guard_sets_last(stage: Stage, config: RunConfig) -> None:
    tasks = load_tasks(config, stage.folder)
    assert [(task.name, task.role) for task in tasks] == [
        ("a task", "primary"),
        ("decides", "primary"),
        ("told", "exploratory"),
        ("told too", "exploratory"),
        ("Formats", "guard"),
        ("Arithmetic", "guard"),
    ]
    assert [len(task.questions) for task in tasks] == [8, 20, 20, 20, 12, 12]
    assert {(task.num_epochs, task.temperature) for task in tasks} == {(2, 0.5)}


def test_the_seed_chooses_the_guard_questions(stage: Stage, config: RunConfig) -> None:
    def asked(config: RunConfig) -> list[str]:
        return [one.id for task in load_tasks(config, stage.folder)[4:] for one in task.questions]

    other = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"seed": 6})}
    )
    assert asked(config) == asked(config)
    assert asked(config) != asked(other)


def test_a_pilot_asks_the_first_questions_of_every_task(stage: Stage, config: RunConfig) -> None:
    whole = load_tasks(config, stage.folder)
    small = load_tasks(pilot_of(config, 3), stage.folder)
    for before, after in zip(whole, small, strict=True):
        assert (before.name, len(after.questions)) == (after.name, 3)
        # What is asked now is asked later too, and need not be asked again.
        assert {one.id for one in after.questions} <= {one.id for one in before.questions}
        assert after.examples == before.examples


def test_a_pilot_changes_nothing_but_the_numbers_and_never_asks_more(config: RunConfig) -> None:
    assert pilot_of(config, 1000) == config
    small = pilot_of(config, 10)
    assert small.evaluation.num_samples == 8
    assert [task.num_samples for task in small.evaluation.tasks] == [10, 10, 10]
    assert small.evaluation.guard.num_samples == 10
    before, after = (json.loads(one.model_dump_json()) for one in (config, small))
    for settings in (before["evaluation"], after["evaluation"]):
        for part in (*settings["tasks"], settings["guard"]):
            del part["num_samples"]
    assert before == after


def test_a_set_that_the_data_stage_has_not_seen_is_told(stage: Stage, config: RunConfig) -> None:
    (stage.folder / "test.parquet").unlink()
    with pytest.raises(UserError, match=r"test\.parquet"):
        load_tasks(config, stage.folder)
