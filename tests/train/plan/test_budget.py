from pathlib import Path

import pytest

from configs.errors import UserError
from train.plan.budget import find_budget, parse_memory


@pytest.mark.parametrize(
    ("text", "gib"),
    [("24GiB", 24), ("24GB", 24), (" 24 gb ", 24), ("24", 24), ("22.5g", 22.5), ("24576MiB", 24)],
)
def test_amounts_of_memory(text: str, gib: float) -> None:
    assert parse_memory(text) == gib


@pytest.mark.parametrize("text", ["", "GiB", "24 bananas", "-24GiB", "0", "24GiB 3", "1e3", "24,5"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"(?s)not an amount of memory.*24GiB"):
        parse_memory(text)


def test_what_is_asked_for_is_a_card() -> None:
    assert find_budget("16GiB") == (16, "cuda", "as asked for")


def install_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_card_is_found_by_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(tmp_path, monkeypatch, 'echo "NVIDIA GeForce RTX 4090, 24564"')
    gib, device, told = find_budget(None)
    assert (round(gib, 2), device, told) == (23.99, "cuda", "NVIDIA GeForce RTX 4090")


@pytest.mark.parametrize("answer", ["exit 9", "echo no devices were found", "sleep 5"])
def test_without_a_card_it_is_this_machine(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_driver(tmp_path, monkeypatch, answer)
    budget = find_budget(None)
    assert budget.device == "cpu"
    assert 0.1 < budget.gib < 10_000
