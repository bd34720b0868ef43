import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from configs.errors import INTERRUPTED_STATUS, Interrupted
from tests.train.tiny_training import SendTerm, adapter_bytes, build_trainer, train
from train.checkpoints import MARKER, latest_resumable
from train.interruption import Interruption

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_end_of_the_suite() -> Iterator[None]:
    """A signal that nobody takes fails the test and not the whole suite."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError("SIGTERM was not taken")

    before = signal.signal(signal.SIGTERM, fail)
    yield
    assert signal.getsignal(signal.SIGTERM) is fail, "the handler before was not put back"
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def unbroken(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("unbroken")
    trainer = build_trainer(folder, tiny_checkpoint)
    train(trainer)
    return adapter_bytes(trainer, folder / "adapter")


@pytest.mark.parametrize(
    ("event", "step", "saved_step"),
    [
        ("on_step_begin", 0, 1),
        ("on_substep_end", 4, 5),
        ("on_pre_optimizer_step", 6, 7),
        ("on_step_end", 2, 2),
        ("on_log", 5, 5),
        # In the middle of the validation after step 6, and while step 4 is saved.
        ("on_prediction_step", 6, 6),
        ("on_save", 4, 4),
    ],
)
def test_the_step_is_saved_and_a_resumed_run_ends_with_the_bytes_of_an_unbroken_one(
    event: str, step: int, saved_step: int, tiny_checkpoint: Path, tmp_path: Path, unbroken: bytes
) -> None:
    checkpoints = tmp_path / "checkpoints"
    with Interruption() as interruption:
        callbacks = [SendTerm(event, step), interruption]
        broken = build_trainer(checkpoints, tiny_checkpoint, callbacks=callbacks)
        with pytest.raises(Interrupted, match=rf"after step {saved_step}\b"):
            train(broken)
    assert broken.state.global_step == saved_step
    assert latest_resumable(checkpoints) == checkpoints / f"checkpoint-{saved_step}"

    resumed = build_trainer(checkpoints, tiny_checkpoint)
    train(resumed)
    assert resumed.state.global_step == 12
    assert adapter_bytes(resumed, tmp_path / "adapter") == unbroken
    # The validation that the signal fell into was not lost.
    assert [log["step"] for log in resumed.state.log_history if "eval_loss" in log] == [3, 6, 9, 12]


def test_in_the_last_step_the_whole_is_taken_up_again_before_it(
    tiny_checkpoint: Path, tmp_path: Path, unbroken: bytes
) -> None:
    with Interruption() as interruption:
        callbacks = [SendTerm("on_step_begin", 11), interruption]
        with pytest.raises(Interrupted):
            train(build_trainer(tmp_path / "c", tiny_checkpoint, callbacks=callbacks))
    assert latest_resumable(tmp_path / "c") == tmp_path / "c" / "checkpoint-8"
    resumed = build_trainer(tmp_path / "c", tiny_checkpoint)
    train(resumed)
    assert adapter_bytes(resumed, tmp_path / "adapter") == unbroken


def test_before_and_after_the_loop_it_ends_at_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="nothing to save"), Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    with Interruption() as interruption:
        trainer = build_trainer(tmp_path, tiny_checkpoint, callbacks=[interruption], num_steps=1)
        train(trainer)
        with pytest.raises(Interrupted, match="nothing to save"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_ends_at_once() -> None:
    program = (
        "import os, signal\n"
        "from train.interruption import Interruption\n"
        "with Interruption() as interruption:\n"
        "    interruption.on_train_begin()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout == "goes on\n"
    assert result.returncode == -signal.SIGTERM


def test_a_process_ended_from_outside_resumes_to_the_same_bytes(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    num_steps = 40
    whole = build_trainer(tmp_path / "whole", tiny_checkpoint, num_steps=num_steps)
    train(whole)
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-m", "tests.train.tiny_training"]
    process = subprocess.Popen(
        [*command, str(folder), str(tiny_checkpoint), str(num_steps)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(f"checkpoint-*/{MARKER}")):
        assert process.poll() is None, "training ended before the signal"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED_STATUS
    told = re.search(r"after step (\d+)", errors)
    assert told
    assert latest_resumable(folder) == folder / f"checkpoint-{told[1]}"
    assert 4 <= int(told[1]) < num_steps

    resumed = build_trainer(folder, tiny_checkpoint, num_steps=num_steps)
    train(resumed)
    assert adapter_bytes(resumed, tmp_path / "a") == adapter_bytes(whole, tmp_path / "b")


def test_a_faulty_training_gives_the_signal_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), Interruption():
        assert signal.getsignal(signal.SIGTERM) is not before
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before
