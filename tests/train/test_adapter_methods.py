"""The train stage with its further methods and guards switched on, on real rows."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.schema import LoraConfig, TrainConfig
from data.conversation import Conversation
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer, render_conversations
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.preference_pairs import write_pairs
from tests.train.test_images import messages
from tests.train.train_stage import train
from train.adapter import BEST
from train.best_adapter import best_adapter
from train.checkpoints import MARKER
from train.job import TrainFiles

WEIGHTS = "adapter_model.safetensors"


def with_settings(config: TrainConfig, **settings: object) -> TrainConfig:
    return TrainConfig.model_validate(config.model_dump() | settings)


def test_a_training_that_stops_early_ends_with_its_best_adapter(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = with_settings(
        train_config,
        num_steps=60,
        learning_rate=0.1,
        validate_every_steps=1,
        early_stopping_patience=2,
        max_loss_ratio=100,
    )
    training = train(config, train_files, tiny_checkpoint)
    best = best_adapter(train_files.checkpoints / BEST)
    assert best is not None
    assert training.facts["num_steps"] == best.step + 2 < 60
    assert training.facts["best_step"] == best.step
    assert training.facts["validation_loss"] == pytest.approx(best.loss, abs=1e-4)
    expected, found = load_file(best.path / WEIGHTS), load_file(train_files.adapter / WEIGHTS)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_loss_that_is_no_number_ends_with_the_rows_and_without_an_adapter(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "broken")
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"(?s)step 1 has loss nan.*colours\.jsonl:\d+") as caught:
        train(train_config, train_files, checkpoint)
    assert str(caught.value).count("colours.jsonl") == train_config.batch_rows
    assert not train_files.adapter.exists()
    assert not list(train_files.checkpoints.glob("checkpoint-*"))


def test_losses_reach_the_tracker_that_is_named(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = with_settings(train_config, trackers=["tensorboard"])
    training = train(config, train_files, tiny_checkpoint)
    (folder,) = (train_files.trackers / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    losses = [log["loss"] for log in training.history if "loss" in log]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)


def test_a_resumed_eva_adapter_is_that_of_an_unbroken_run(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    lora = LoraConfig(rank=4, init="eva", plus_ratio=4)
    config = with_settings(train_config, lora=lora.model_dump())
    train(config, train_files, tiny_checkpoint)
    unbroken = (train_files.adapter / WEIGHTS).read_bytes()
    facts = train(config, train_files, tiny_checkpoint, resume=True).facts
    assert 0 < facts["resumed_from_step"] < 6
    assert (train_files.adapter / WEIGHTS).read_bytes() == unbroken


def test_preferences_are_learned_by_configuration_alone(
    train_config: TrainConfig,
    train_files: TrainFiles,
    tiny_checkpoint: Path,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    write_pairs(train_files.train_rows.parent, tokenizer)
    config = with_settings(train_config, method="preference", num_steps=20, learning_rate=1e-2)
    facts = train(config, train_files, tiny_checkpoint).facts
    assert facts["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert facts["last_loss"] < 0.6
    assert facts["last_validation_reward_margin"] > 0.1
    assert (train_files.adapter / WEIGHTS).exists()


def test_conversations_with_images_are_learned(
    train_config: TrainConfig, train_files: TrainFiles, tmp_path: Path
) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "mistral3", with_tokenizer=True)
    renderer = load_renderer(load_tokenizer(checkpoint))
    colours = ["red", "green", "blue", "yellow"] * 8
    texts = [
        messages(Image.new("RGB", (28 + 28 * (n % 2), 28), colour), answer=colour)
        for n, colour in enumerate(colours)
    ]
    rows = [
        Conversation(id=str(n), where="-", messages=tuple(orjson.loads(text)))
        for n, text in enumerate(texts)
    ]
    rendered = render_conversations(rows, renderer, max_length=256)
    table = pa.table(
        {
            "id": [row.id for row in rows],
            "where": [row.where for row in rows],
            "messages": texts,
            "input_ids": [one.input_ids for one in rendered],
            "assistant_mask": [one.assistant_mask for one in rendered],
        }
    )
    pq.write_table(table, train_files.train_rows)
    pq.write_table(table.slice(0, 8), train_files.validation_rows)
    config = with_settings(
        train_config,
        num_steps=20,
        batch_rows=2,
        micro_batch_rows=1,
        learning_rate=1e-2,
        packing=True,
        gradient_checkpointing=True,
    )
    facts = train(config, train_files, checkpoint).facts
    assert facts["last_loss"] < facts["first_loss"] - 0.5


def test_sigterm_saves_the_step_and_the_resumed_run_ends_with_the_same_bytes(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = with_settings(train_config, num_steps=60, save_every_steps=1000)
    train(config, train_files, tiny_checkpoint)
    unbroken = (train_files.adapter / WEIGHTS).read_bytes()
    command = [sys.executable, "-m", "tests.train.train_process", str(tmp_path)]
    command += [str(tiny_checkpoint), config.model_dump_json(), "fresh"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 75
    assert len(list(train_files.checkpoints.glob(f"checkpoint-*/{MARKER}"))) == 1
    facts = train(config, train_files, tiny_checkpoint, resume=True).facts
    assert 0 < facts["resumed_from_step"] < 60
    assert (train_files.adapter / WEIGHTS).read_bytes() == unbroken
