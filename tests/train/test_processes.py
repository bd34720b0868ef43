"""Two processes over gloo: the same rows a step, the same losses, the same way to go on."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from safetensors.torch import load_file

from configs.errors import Interrupted, UserError
from configs.schema import HardwareConfig, LoraConfig, Strategy, TrainConfig
from train.checkpoints import latest_resumable
from train.job import TrainFiles, Training, TrainJob
from train.launch import check_devices, launch

QUIET = Console(quiet=True)
LIMIT_S = 300.0
# What sequences are trained with that hardly fit.
LONG_SEQUENCES = {"gradient_checkpointing": True, "mlp_tile_tokens": 16}
# In bf16 the order of a sum would show more than processes that never hear of each other.
PRECISE = {"lora": LoraConfig(dtype="float32")}
RELATIVE = 2e-4
KEEP_BEST = {"early_stopping_patience": 5}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def job(
    checkpoint: Path,
    files: TrainFiles,
    config: TrainConfig,
    *,
    devices: int = 1,
    strategy: Strategy = "ddp",
) -> TrainJob:
    own = files.adapter.parent / f"{strategy}-{devices}"
    own.mkdir(exist_ok=True)
    return TrainJob(
        config=config,
        hardware=HardwareConfig(devices=devices, strategy=strategy),
        checkpoint=checkpoint,
        base_name="tiny",
        run_name="colours",
        max_length=256,
        files=replace(files, checkpoints=own / "checkpoints", adapter=own / "adapter"),
        resume=False,
    )


def losses(training: Training, name: str = "loss") -> list[float]:
    return [log[name] for log in training.history if name in log]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_as_one_does(
    tiny_checkpoint: Path, train_files: TrainFiles, train_config: TrainConfig, strategy: Strategy
) -> None:
    # Three validation batches, which two processes cannot share out evenly.
    config = train_config.model_copy(
        update={"max_validation_rows": 5} | LONG_SEQUENCES | KEEP_BEST | PRECISE
    )
    alone = launch(job(tiny_checkpoint, train_files, config), QUIET)
    together = job(tiny_checkpoint, train_files, config, devices=2, strategy=strategy)
    shared = launch(together, QUIET)
    assert shared.facts["num_processes"] == 2
    assert shared.facts["num_tokens"] == alone.facts["num_tokens"]
    assert losses(shared) == pytest.approx(losses(alone), rel=RELATIVE)
    validations = [losses(training, "eval_loss") for training in (shared, alone)]
    assert validations[0] == pytest.approx(validations[1], rel=RELATIVE)
    assert losses(alone)[-1] < 0.95 * losses(alone)[0]
    tensors = load_file(together.files.adapter / "adapter_model.safetensors")
    expected = load_file(
        together.files.adapter.parents[1] / "ddp-1/adapter/adapter_model.safetensors"
    )
    # The embedding, half of this small model, stays together after a pass: it is the head too.
    share = shared.facts["base_gib_per_process"] / alone.facts["base_gib_per_process"]
    assert (share == 1) if strategy == "ddp" else share < 0.8
    assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
        name: (t.shape, t.dtype) for name, t in expected.items()
    }


def adapter_bytes(training: TrainJob) -> bytes:
    return (training.files.adapter / "adapter_model.safetensors").read_bytes()


@contextmanager
def once_saved(checkpoints: Path, act: Callable[[], None]) -> Iterator[None]:
    """Acts while the block trains, as soon as the first checkpoint is whole."""

    def wait() -> None:
        until = time.monotonic() + LIMIT_S
        while not list(checkpoints.glob("checkpoint-*/complete")):
            assert time.monotonic() < until, "no checkpoint came"
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def kill_one() -> None:
    """The second of the processes that train together."""
    for process in psutil.Process().children(recursive=True):
        if process.environ().get("RANK") == "1":
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint_and_nothing_else(
    tiny_checkpoint: Path,
    train_files: TrainFiles,
    train_config: TrainConfig,
    tmp_path: Path,
    strategy: Strategy,
) -> None:
    config = train_config.model_copy(update={"num_steps": 20})
    unbroken = job(tiny_checkpoint, train_files, config, devices=2, strategy=strategy)
    expected = launch(unbroken, QUIET)
    broken = replace(
        unbroken,
        files=replace(
            unbroken.files, checkpoints=tmp_path / "broken" / "checkpoints", adapter=tmp_path / "a"
        ),
    )
    with (
        once_saved(broken.files.checkpoints, kill_one),
        pytest.raises(UserError, match="goes on from the last checkpoint"),
    ):
        launch(broken, QUIET)
    assert not broken.files.adapter.exists()
    resumed = launch(replace(broken, resume=True), QUIET)
    assert resumed.facts["resumed_from_step"] > 0
    assert losses(resumed) == losses(expected)
    assert adapter_bytes(broken) == adapter_bytes(unbroken)


def test_sigterm_ends_all_processes_with_the_step_saved(
    tiny_checkpoint: Path, train_files: TrainFiles, train_config: TrainConfig
) -> None:
    config = train_config.model_copy(update={"num_steps": 2000})
    training = job(tiny_checkpoint, train_files, config, devices=2)
    with (
        once_saved(training.files.checkpoints, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(Interrupted, match="which is saved"),
    ):
        launch(training, QUIET)
    assert latest_resumable(training.files.checkpoints) is not None
    assert not [p for p in psutil.Process().children(recursive=True) if "RANK" in p.environ()]


def test_more_devices_than_cards_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="2 CUDA devices, and 3"):
        check_devices(3)
