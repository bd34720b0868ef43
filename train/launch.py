"""A training in this process, or in several of this host under `accelerate launch`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console

from configs.errors import Interrupted, UserError
from train.adapter import train_job
from train.job import Training, TrainJob, read_outcome

JOB_FILE = "job.json"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "processes.log"
NUM_LAST_LINES = 15


def launch(job: TrainJob, console: Console) -> Training:
    """Train as `job.hardware` says. Errors as those of `train_adapter`; `UserError` where there are
    fewer cards than devices, or where a process ends without a word.
    """
    if job.hardware.devices == 1:
        with _one_card():
            return train_job(job, console)
    check_devices(job.hardware.devices)
    folder = processes_folder(job)
    outcome = folder / OUTCOME_FILE
    outcome.unlink(missing_ok=True)
    (folder / JOB_FILE).write_text(job.to_json(), encoding="utf-8")
    status = _run(build_command(job.hardware.devices, folder), log=folder / LOG_FILE)
    if outcome.exists():
        return read_outcome(outcome)
    if status == -signal.SIGTERM or status == 128 + signal.SIGTERM:
        raise Interrupted("SIGTERM: stopped, and goes on from the last checkpoint")
    raise UserError(
        f"the processes that train together ended with status {status}:\n"
        + _last_lines(folder / LOG_FILE),
        where=folder / LOG_FILE,
        remedy="mend what its last lines name, then run the same command: it goes on from the last "
        "checkpoint",
    )


def processes_folder(job: TrainJob) -> Path:
    """Where processes that train together find their job and leave its outcome."""
    folder = job.files.checkpoints.parent / "train" / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_devices(num_devices: int) -> None:
    """Raise `UserError` where this host has cards, but fewer than are asked for."""
    num_cards = torch.cuda.device_count()
    if 0 < num_cards < num_devices:
        raise UserError(
            f"there are {num_cards} CUDA devices, and {num_devices} are asked for",
            where="hardware.devices",
            remedy=f"set hardware.devices: {num_cards}, or let CUDA_VISIBLE_DEVICES show more",
        )


def build_command(num_processes: int, folder: Path) -> list[str]:
    """The command line of `accelerate launch`; one for CUDA and, over gloo, for CPUs.

    Its `--cpu` would start one process, `--multi_gpu` starts as many as it is told.
    """
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1"),
        # A port that is free; the default one is taken by the second training on a host.
        *("--main_process_port", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("-m", "train.launched", str(folder)),
    ]


@contextmanager
def _one_card() -> Iterator[None]:
    """Show this process one card, which transformers would else split batches over all of.

    Processes that are started later, such as vLLM's, see the others again.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        yield
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
    try:
        yield
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]


def _run(command: list[str], *, log: Path) -> int:
    """The status with which the command ended. SIGTERM and Ctrl-C are handed on to it."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", "1")
    with log.open("ab") as output:
        process = subprocess.Popen(command, stderr=output, env=environment, start_new_session=True)
    try:
        with _handing_on(process):
            return process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _handing_on(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """SIGTERM and SIGINT reach the process, which ends its step and saves it."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    former = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _last_lines(log: Path) -> str:
    """What the processes said last: their tracebacks, not the launcher's account of who ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    own = [line for line in lines if line.startswith("[rank")]
    return "\n".join((own or lines)[-NUM_LAST_LINES:])
