import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from configs.errors import UserError
from configs.schema import TrainConfig
from train.adapter import TrainFiles, load_rows, train_adapter
from train.checkpoints import MARKER, latest_resumable
from train.supervised_trainer import IGNORED


def train(config: TrainConfig, files: TrainFiles, checkpoint: Path, *, resume: bool) -> dict:  # type: ignore[type-arg]
    return train_adapter(
        config, checkpoint=checkpoint, files=files, resume=resume, console=Console(quiet=True)
    )


def write_checkpoint(folder: Path, step: int, *, is_whole: bool = True) -> None:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    state = {"global_step": step, "max_steps": 20}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    if is_whole:
        (checkpoint / MARKER).touch()


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_training_lowers_the_loss_and_writes_the_adapter(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = train_config.model_copy(update={"num_steps": 20, "learning_rate": 2e-2})
    facts = train(config, train_files, tiny_checkpoint, resume=False)
    assert facts["num_steps"] == 20
    assert facts["last_loss"] < facts["first_loss"] - 0.15
    tensors = load_file(train_files.adapter / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 7
    assert all(tensor.abs().max() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_tokens_are_counted_without_padding(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = train_config.model_copy(update={"num_steps": 8})
    facts = train(config, train_files, tiny_checkpoint, resume=False)
    rows = load_rows(train_files.train_rows)
    # 8 steps of 4 rows are one pass over the 32 rows.
    assert facts["num_tokens"] == sum(len(ids) for ids in rows["input_ids"])


def test_labels_are_the_supervised_tokens_alone(train_files: TrainFiles) -> None:
    row = load_rows(train_files.train_rows)[0]
    kept = [label for label in row["labels"] if label != IGNORED]
    assert 0 < len(kept) < len(row["input_ids"]) / 2
    assert kept == row["input_ids"][-len(kept) - 1 : -1]


def test_killed_training_resumes_to_the_very_bytes_of_an_unbroken_run(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = train_config.model_copy(update={"num_steps": 40})
    train(config, train_files, tiny_checkpoint, resume=False)
    unbroken = adapter_bytes(train_files.adapter)
    shutil.rmtree(train_files.adapter)
    shutil.rmtree(train_files.checkpoints)

    command = [sys.executable, "-m", "tests.train.train_process", str(tmp_path)]
    command += [str(tiny_checkpoint), config.model_dump_json()]
    process = subprocess.Popen([*command, "fresh"])
    deadline = time.monotonic() + 120
    while not list(train_files.checkpoints.glob(f"checkpoint-*/{MARKER}")):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not train_files.adapter.exists()

    facts = train(config, train_files, tiny_checkpoint, resume=True)
    assert 0 < facts["resumed_from_step"] < 40
    assert facts["num_steps"] == 40
    assert adapter_bytes(train_files.adapter) == unbroken


def test_training_killed_after_its_last_step_ends_with_the_same_adapter(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    train(train_config, train_files, tiny_checkpoint, resume=False)
    before = adapter_bytes(train_files.adapter)
    shutil.rmtree(train_files.adapter)
    facts = train(train_config, train_files, tiny_checkpoint, resume=True)
    assert 0 < facts["resumed_from_step"] < facts["num_steps"] == train_config.num_steps
    assert adapter_bytes(train_files.adapter) == before


def test_a_half_written_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2)
    write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 12, is_whole=False)
    assert latest_resumable(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()


def test_without_resume_old_checkpoints_are_discarded(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    write_checkpoint(train_files.checkpoints, 4)
    facts = train(train_config, train_files, tiny_checkpoint, resume=False)
    assert facts["resumed_from_step"] == 0


def test_no_rows_is_an_error_with_the_file(train_files: TrainFiles) -> None:
    with pytest.raises(UserError, match="no rows"):
        load_rows(train_files.validation_rows, limit=0)
