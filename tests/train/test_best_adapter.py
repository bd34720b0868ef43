import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from configs.errors import Interrupted, UserError
from tests.train.tiny_training import (
    BATCH_ROWS,
    SendTerm,
    build_rows,
    build_trainer,
    train,
    train_until,
)
from train.best_adapter import (
    KeepBestAdapter,
    Validation,
    best_adapter,
    lowest,
    num_since_lowest,
    validations,
)
from train.checkpoints import latest_resumable
from train.interruption import Interruption

NUM_STEPS = 40


def build_spoiled(
    folder: Path,
    checkpoint: Path,
    *callbacks: TrainerCallback,
    patience: int = 3,
    **options: Any,  # noqa: ANN401 - those of TrainingArguments
) -> Trainer:
    """A training whose validation loss falls and then rises: from step 10 on rows teach noise."""
    rows = build_rows(checkpoint, BATCH_ROWS * NUM_STEPS + 3).to_list()
    for number in range(2 * 10, BATCH_ROWS * NUM_STEPS):
        ids = rows[number]["input_ids"]
        rows[number]["labels"] = [-100] * 6 + ids[:-6][::-1]
    best = KeepBestAdapter(folder / "checkpoints" / "best", patience=patience)
    options = {"num_steps": NUM_STEPS, "eval_steps": 2, "learning_rate": 2e-2} | options
    return build_trainer(
        folder / "checkpoints",
        checkpoint,
        callbacks=[best, *callbacks],
        rows=datasets.Dataset.from_list(rows),
        **options,
    )


def best_bytes(folder: Path) -> bytes:
    best = best_adapter(folder / "checkpoints" / "best")
    assert best is not None
    return (best.path / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Trainer]:
    folder = tmp_path_factory.mktemp("unbroken")
    trainer = build_spoiled(folder, tiny_checkpoint)
    train(trainer)
    return folder, trainer


def test_training_stops_after_so_many_validations_without_a_lower_loss(
    unbroken: tuple[Path, Trainer],
) -> None:
    folder, trainer = unbroken
    found = validations(trainer.state.log_history)
    best = best_adapter(folder / "checkpoints" / "best")
    assert best is not None
    assert (best.step, best.loss) == min(found, key=lambda one: one.loss)
    # The loss has gone up and down before, so there were others before it.
    assert best.step > 4
    assert [one.step for one in found] == list(range(2, best.step + 7, 2))
    assert trainer.state.global_step == best.step + 6 < NUM_STEPS


def test_what_is_kept_is_the_adapter_of_that_step_and_not_the_last(
    unbroken: tuple[Path, Trainer], tiny_checkpoint: Path
) -> None:
    folder, trainer = unbroken
    best = best_adapter(folder / "checkpoints" / "best")
    assert best is not None
    last_loss = validations(trainer.state.log_history)[-1].loss
    again = build_spoiled(folder, tiny_checkpoint)
    assert isinstance(again.model, PeftModel)
    again.model.load_adapter(str(best.path), "default")
    loss = again.evaluate()["eval_loss"]
    assert loss == pytest.approx(best.loss, abs=1e-6)
    assert loss < last_loss - 0.05


@pytest.mark.parametrize(("save_steps", "killed_at"), [(4, 13), (2, 15), (10, 13), (16, 15)])
def test_a_killed_training_ends_with_the_same_adapter_at_the_same_step(
    save_steps: int,
    killed_at: int,
    unbroken: tuple[Path, Trainer],
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    train_until(killed_at, build_spoiled(tmp_path, tiny_checkpoint, save_steps=save_steps))
    resumed = build_spoiled(tmp_path, tiny_checkpoint, save_steps=save_steps)
    train(resumed)
    folder, whole = unbroken
    assert best_bytes(tmp_path) == best_bytes(folder)
    assert resumed.state.global_step == whole.state.global_step
    assert validations(resumed.state.log_history) == validations(whole.state.log_history)


def test_an_adapter_of_a_later_step_than_the_checkpoint_is_not_trusted(
    unbroken: tuple[Path, Trainer], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train_until(13, build_spoiled(tmp_path, tiny_checkpoint, save_steps=10))
    best = tmp_path / "checkpoints" / "best"
    # Step 12 was the best, and resuming goes back to 10, whose best, 8, is still there.
    assert {path.name for path in best.iterdir()} == {"step-8", "step-12"}
    for step in (12, 18):
        later = best / f"step-{step}"
        later.mkdir(exist_ok=True)
        (later / "adapter_model.safetensors").write_bytes(b"of another course")
        (later / "validation.json").write_text(json.dumps({"step": step, "loss": 0.0}))
    train_until(11, build_spoiled(tmp_path, tiny_checkpoint, save_steps=10))
    found = best_adapter(best)
    assert found is not None
    assert found.step == 8
    train(build_spoiled(tmp_path, tiny_checkpoint, save_steps=10))
    assert best_bytes(tmp_path) == best_bytes(unbroken[0])


def test_only_the_adapters_that_a_checkpoint_needs_are_kept(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train_until(13, build_spoiled(tmp_path, tiny_checkpoint, save_steps=4))
    # Checkpoints 8 and 12 are kept.
    best = tmp_path / "checkpoints" / "best"
    assert {path.name for path in best.iterdir()} == {"step-8", "step-12"}


def test_the_stop_itself_is_never_resumed_from(
    unbroken: tuple[Path, Trainer], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train(build_spoiled(tmp_path, tiny_checkpoint, save_steps=2))
    folder, whole = unbroken
    stop = whole.state.global_step
    newest = latest_resumable(tmp_path / "checkpoints")
    assert newest == tmp_path / "checkpoints" / f"checkpoint-{stop - 2}"
    resumed = build_spoiled(tmp_path, tiny_checkpoint, save_steps=2)
    train(resumed)
    assert resumed.state.global_step == stop
    assert best_bytes(tmp_path) == best_bytes(folder)


def test_a_signal_in_the_last_validation_changes_nothing_either(
    unbroken: tuple[Path, Trainer], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder, whole = unbroken
    stop = whole.state.global_step

    send = SendTerm("on_prediction_step", stop)
    with Interruption() as interruption, pytest.raises(Interrupted):
        train(build_spoiled(tmp_path, tiny_checkpoint, send, interruption, save_steps=8))
    resumed = build_spoiled(tmp_path, tiny_checkpoint, save_steps=8)
    train(resumed)
    assert resumed.state.global_step == stop
    assert best_bytes(tmp_path) == best_bytes(folder)


def test_patience_that_lasts_trains_to_the_last_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = build_spoiled(tmp_path, tiny_checkpoint, patience=100)
    train(trainer)
    assert trainer.state.global_step == NUM_STEPS
    best = best_adapter(tmp_path / "checkpoints" / "best")
    assert best is not None
    assert best.loss == min(one.loss for one in validations(trainer.state.log_history))
    # A validation after training, of whatever adapter, is not one of its own.
    before = validations(trainer.state.log_history)
    trainer.evaluate()
    assert "eval_loss" in trainer.state.log_history[-1]
    assert validations(trainer.state.log_history) == before
    assert best_adapter(tmp_path / "checkpoints" / "best") == best


def test_a_best_adapter_that_is_gone_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    train_until(13, build_spoiled(tmp_path, tiny_checkpoint, save_steps=4))
    best = tmp_path / "checkpoints" / "best"
    (best / "step-12").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="the best adapter so far, of step 12, is gone"):
        train(build_spoiled(tmp_path, tiny_checkpoint, save_steps=4))


def test_a_fresh_training_clears_what_an_earlier_one_left(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    left = tmp_path / "checkpoints" / "best" / "step-1"
    left.mkdir(parents=True)
    train_until(1, build_spoiled(tmp_path, tiny_checkpoint))
    assert not left.exists()
    assert best_adapter(tmp_path / "checkpoints" / "best") is None


def test_saved_adapters_are_whole_and_load(unbroken: tuple[Path, Trainer]) -> None:
    best = best_adapter(unbroken[0] / "checkpoints" / "best")
    assert best is not None
    assert len(load_file(best.path / "adapter_model.safetensors")) == 2 * 2 * 7
    assert json.loads((best.path / "adapter_config.json").read_text())["r"] == 4


def test_the_first_of_equal_losses_is_the_lowest() -> None:
    history = [Validation(2, 3.0), Validation(4, 1.0), Validation(6, 1.0), Validation(8, 2.0)]
    assert lowest(history) == Validation(4, 1.0)
    assert [num_since_lowest(history[:num]) for num in range(5)] == [0, 0, 0, 1, 2]
    assert lowest([]) is None
    log = [{"loss": 1.0, "step": 2}, {"eval_loss": 3.0, "step": 2}, {"train_loss": 1.0, "step": 2}]
    assert validations(log) == [Validation(2, 3.0)]
