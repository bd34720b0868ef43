"""What results are told to have been taken on."""

import os
import stat
from pathlib import Path

import pytest

from benchmarks.machine import describe_machine, name_machine


def put_nvidia_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_a_machine_without_a_card_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = describe_machine(["numpy"])
    assert machine["card"] is None
    assert machine["cpu_count"] == os.cpu_count()
    assert machine["versions"].keys() == {"numpy"}
    assert "driver" not in name_machine(machine)


def test_the_first_card_is_named_with_its_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_nvidia_smi(tmp_path, "echo 'NVIDIA A, B, 570.1'; echo 'NVIDIA C, 570.1'")
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = describe_machine()
    assert machine["card"] == {"name": "NVIDIA A, B", "driver": "570.1"}
    assert "NVIDIA A, B (driver 570.1)" in name_machine(machine)


def test_a_driver_that_does_not_answer_is_no_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_nvidia_smi(tmp_path, "echo 'has failed because it could not talk to the driver'; exit 9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_machine()["card"] is None
