import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from configs.schema import LoraConfig, TrainConfig
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train import train_stage
from train import documents
from train.adapter import build_model
from train.checkpoints import MARKER, latest_resumable
from train.job import TrainFiles
from train.rows import load_rows

# Everything that makes long rows fit, as the 24B has it.
FOR_LONG_ROWS = {
    "packing": True,
    "gradient_checkpointing": True,
    "mlp_tile_tokens": 64,
    "optimizer": "adamw_8bit",
    "batch_rows": 2,
    "micro_batch_rows": 1,
}


def train(
    config: TrainConfig, files: TrainFiles, checkpoint: Path, *, resume: bool
) -> dict[str, Any]:
    return train_stage.train(config, files, checkpoint, resume=resume).facts


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


def test_a_mistral3_learns_with_an_adapter_whose_keys_servers_accept(
    train_config: TrainConfig, train_files: TrainFiles, tmp_path: Path
) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "mistral3", with_tokenizer=True)
    settings = FOR_LONG_ROWS | {"num_steps": 12, "learning_rate": 2e-2}
    facts = train(train_config.model_copy(update=settings), train_files, checkpoint, resume=False)
    assert facts["last_loss"] < facts["first_loss"] - 0.15
    names = set(load_file(train_files.adapter / "adapter_model.safetensors"))
    prefix = "base_model.model.model.language_model.layers."
    assert len(names) == 2 * 2 * 7
    assert all(name.startswith(prefix) for name in names)
    adapter_config = json.loads((train_files.adapter / "adapter_config.json").read_text())
    assert adapter_config["base_model_name_or_path"] == "tiny"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_adapter_is_trained_and_saved_in_the_number_format_asked_for(
    dtype: str, train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = train_config.model_copy(
        update={"num_steps": 2, "lora": LoraConfig.model_validate({"rank": 4, "dtype": dtype})}
    )
    train(config, train_files, tiny_checkpoint, resume=False)
    tensors = load_file(train_files.adapter / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}


def test_only_the_language_model_attends_within_documents(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "mistral3")
    base: Any = build_model(train_config, checkpoint, with_images=True).get_base_model()
    assert base.get_decoder().config._attn_implementation == documents.NAME
    assert base.config.vision_config._attn_implementation != documents.NAME


def test_tokens_are_counted_without_padding(
    train_config: TrainConfig, train_files: TrainFiles, tiny_checkpoint: Path
) -> None:
    config = train_config.model_copy(update={"num_steps": 8})
    facts = train(config, train_files, tiny_checkpoint, resume=False)
    rows = load_rows(train_files.train_rows)
    # 8 steps of 4 rows are one pass over the 32 rows.
    assert facts["num_tokens"] == rows.lengths.sum()


@pytest.mark.parametrize("settings", [{}, FOR_LONG_ROWS], ids=["plain", "for long rows"])
def test_killed_training_resumes_to_the_very_bytes_of_an_unbroken_run(
    settings: dict[str, object],
    train_config: TrainConfig,
    train_files: TrainFiles,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    config = train_config.model_copy(update={"num_steps": 40} | settings)
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
