"""From votes that the workbench has kept to an adapter that prefers what was chosen."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.load import load_config
from data.prepare import prepare
from data.votes import Choice
from tests.configs.minimal import write_config
from tests.data.cast_votes import cast, keep
from tests.train.preference_pairs import COLOURS
from tests.train.train_stage import train
from train.job import TrainFiles

NUM_PROMPTS = 48
CHANGES = (
    ("kind: files", "kind: votes"),
    ("path: rows.jsonl", "path: serve/votes.jsonl\n    rejected_models: [ours]"),
    ("  name: tiny\n", "  name: tiny\n  max_length: 256\n"),
    ("num_steps: 3", "num_steps: 12\n  method: preference\n  learning_rate: 1.0e-2"),
)


def vote_on_colours(file: Path) -> None:
    """Colours are preferred to begging off, on each prompt twice; some votes name no winner."""
    number = 0
    for prompt in range(NUM_PROMPTS):
        question = f"Which colour is number {prompt}?"
        good, bad = f"The answer is {COLOURS[prompt % 7]}.", "I do not know."
        choices: tuple[Choice, ...] = ("b", "b", "tie" if prompt % 2 else "both_bad")
        for turn, choice in enumerate(choices):
            answers = (bad, good + "!" * turn)
            number += 1
            keep(file, [cast(question, number=number, choice=choice, answers=answers)])
    # Left out by the configuration: the run's own answer is not the rejected one.
    keep(file, [cast("Which colour?", number=0, choice="a")])


def test_votes_become_an_adapter_by_configuration_alone(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    vote_on_colours(tmp_path / "serve" / "votes.jsonl")
    config = load_config(
        write_config(tmp_path, *CHANGES, ("path: weights", f"path: {tiny_checkpoint}"))
    )
    data = tmp_path / "run" / "data"
    data.parent.mkdir()
    facts = prepare(config, data)
    assert facts["num_read"] == 3 * NUM_PROMPTS + 1
    assert sum(facts["num_rows"].values()) == 2 * NUM_PROMPTS
    assert sum(facts["dropped"].values()) == NUM_PROMPTS + 1
    assert facts["num_rejects"] == 0
    assert json.loads((data / "facts.json").read_text())["num_preference_pairs"] == 2 * NUM_PROMPTS
    asked: dict[str, set[str]] = {}
    for side in ("train", "validation", "test"):
        for row in pq.read_table(data / f"{side}.parquet").to_pylist():
            messages = json.loads(row["messages"])
            assert messages[-1]["content"].startswith("The answer is")
            assert json.loads(row["rejected"])["content"] == "I do not know."
            asked.setdefault(messages[0]["content"], set()).add(side)
    assert len(asked) == NUM_PROMPTS
    assert all(len(sides) == 1 for sides in asked.values())
    report = (data / "report.html").read_text()
    assert "145 votes of the workbench, 96 taken (chosen: theirs 96)" in report
    assert "24 found both answers bad" in report

    files = TrainFiles(
        data / "train.parquet",
        data / "validation.parquet",
        tmp_path / "checkpoints",
        tmp_path / "trackers",
        tmp_path / "adapter",
    )
    trained = train(config.train, files, tiny_checkpoint).facts
    assert trained["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert trained["last_loss"] < 0.6
    assert trained["last_validation_reward_margin"] > 0.1
    assert (files.adapter / "adapter_model.safetensors").exists()
