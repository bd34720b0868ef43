"""Trainings that really break: by a poisoned weight, row or gradient, or by too high a rate."""

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.errors import UserError
from tests.train.tiny_training import (
    BATCH_ROWS,
    build_model,
    build_rows,
    build_trainer,
    train,
    train_until,
)
from train.checkpoints import latest_resumable
from train.loss_watch import LossWatch, StepLoss, loss_ratio, step_losses

UNUSED_TOKEN = 390


def watch(max_loss_ratio: float = 1.5) -> LossWatch:
    def rows_of_step(step: int) -> list[str]:
        first = (step - 1) * BATCH_ROWS
        return [f"row {number}" for number in range(first, first + BATCH_ROWS)]

    return LossWatch(rows_of_step, max_loss_ratio=max_loss_ratio)


def saved_steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def embedding_of(model: PeftModel) -> torch.nn.Embedding:
    """The input embedding, which is the head too."""
    embedding = model.get_base_model().get_input_embeddings()  # type: ignore[operator]
    assert isinstance(embedding, torch.nn.Embedding)
    return embedding


def poison_token(model: PeftModel, value: float) -> None:
    """The token's input vector alone: an own head keeps it out of every other step's logits."""
    head = model.get_base_model().get_output_embeddings()  # type: ignore[operator]
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    embedding_of(model).weight.data[UNUSED_TOKEN] = value


def test_a_row_that_breaks_the_loss_is_named_with_its_step(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    rows = build_rows(tiny_checkpoint, 27).to_list()
    rows[11]["input_ids"][1] = UNUSED_TOKEN

    def attempt(value: float) -> None:
        model = build_model(tiny_checkpoint)
        poison_token(model, value)
        trainer = build_trainer(
            tmp_path,
            tiny_checkpoint,
            callbacks=[watch()],
            model=model,
            rows=datasets.Dataset.from_list(rows),
        )
        train(trainer)
        assert trainer.state.global_step == 12

    # The second attempt resumes from step 4 and meets the same row.
    for _ in range(2):
        with pytest.raises(UserError, match="step 6 has loss nan, gradient norm nan") as told:
            attempt(math.nan)
        assert told.value.where == "row 10, row 11"
        assert told.value.remedy
        assert "train.learning_rate (now 0.005)" in told.value.remedy
        assert saved_steps(tmp_path) == ["checkpoint-4"]
    attempt(0.1)


def test_a_weight_that_is_not_a_number_stops_the_first_step(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = build_model(tiny_checkpoint)
    embedding_of(model).weight.data[:, 3] = math.nan
    with pytest.raises(UserError, match="step 1 has loss nan"):
        train(build_trainer(tmp_path, tiny_checkpoint, callbacks=[watch()], model=model))
    assert saved_steps(tmp_path) == []


def test_a_gradient_that_is_not_finite_stops_a_step_whose_loss_is(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = build_model(tiny_checkpoint)
    weight = next(p for name, p in model.named_parameters() if "lora_B" in name)
    weight.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    with pytest.raises(UserError, match=r"step 1 has loss \d\.\d+, gradient norm (inf|nan)"):
        train(build_trainer(tmp_path, tiny_checkpoint, callbacks=[watch()], model=model))


class ThrowOff(TrainerCallback):
    """Throws the model off its course after a step, as one bad update does."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **objects: Any,  # noqa: ANN401
    ) -> None:
        if state.global_step == self._step:
            embedding_of(objects["model"]).weight.data *= 40


def test_an_exploding_loss_stops_training_before_the_step_is_saved(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    callbacks = [watch(), ThrowOff(14)]
    trainer = build_trainer(
        tmp_path, tiny_checkpoint, callbacks=callbacks, num_steps=30, save_steps=1
    )
    with pytest.raises(UserError, match=r"explodes: its mean over steps \d+ to (\d+)") as told:
        train(trainer)
    losses = step_losses(trainer.state.log_history)
    step = losses[-1].step
    assert f"to {step} is" in told.value.what
    assert 14 < step < 24
    ratios = [loss_ratio(losses[:num]) for num in (step - 1, step)]
    assert ratios[0] is not None and ratios[1] is not None
    assert ratios[0] <= 1.5 < ratios[1]
    worst = max(losses, key=lambda one: one.loss)
    assert told.value.where is not None
    assert told.value.where.startswith(f"worst at step {worst.step}, ")
    assert told.value.where.endswith(f"row {2 * worst.step - 2}, row {2 * worst.step - 1}")
    assert saved_steps(tmp_path)[-1] == f"checkpoint-{step - 1}"


def test_a_resumed_run_is_held_against_the_first_step_of_all(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"callbacks": [watch()], "num_steps": 30}
    first = build_trainer(tmp_path, tiny_checkpoint, **options, save_steps=16)
    train_until(16, first)
    loss = step_losses(first.state.log_history)[0].loss
    assert latest_resumable(tmp_path) == tmp_path / "checkpoint-16"

    model = build_model(tiny_checkpoint)
    embedding_of(model).weight.data *= 40
    resumed = build_trainer(tmp_path, tiny_checkpoint, **options, model=model)
    with pytest.raises(UserError, match="explodes") as told:
        train(resumed)
    assert f"times the {loss:.3g} of the first step" in told.value.what
    assert 16 < resumed.state.global_step < 27


def test_a_validation_loss_that_is_not_finite_is_told(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    rows = build_rows(tiny_checkpoint, 27).to_list()
    for row in rows[24:]:
        row["labels"] = [-100] * len(row["labels"])
    trainer = build_trainer(
        tmp_path,
        tiny_checkpoint,
        callbacks=[watch()],
        rows=datasets.Dataset.from_list(rows),
        save_steps=3,
    )
    with pytest.raises(UserError, match="the validation loss after step 3 is nan"):
        train(trainer)
    assert saved_steps(tmp_path) == []


def test_a_trainer_that_hides_what_is_not_finite_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for options in ({"logging_nan_inf_filter": True}, {"logging_steps": 2}):
        trainer = build_trainer(tmp_path, tiny_checkpoint, callbacks=[watch()], **options)
        with pytest.raises(AssertionError):
            train(trainer)


def test_the_ratio_is_of_the_last_ten_losses_to_the_first() -> None:
    losses = [StepLoss(step, 2.0) for step in range(1, 10)]
    assert loss_ratio(losses) is None
    assert loss_ratio([*losses, StepLoss(10, 2.0)]) == 1.0
    assert loss_ratio([StepLoss(1, 4.0), *losses, StepLoss(11, 22.0)]) == 1.0
    assert loss_ratio([StepLoss(1, 0.0), *losses]) == math.inf
    # Of the log, the entries of validations and of the end are no steps.
    log = [{"loss": 1.0, "step": 1}, {"eval_loss": 9.0, "step": 1}, {"train_loss": 1.0, "step": 1}]
    assert step_losses(log) == [StepLoss(1, 1.0)]


def test_only_the_first_rows_of_a_large_step_are_named(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = build_model(tiny_checkpoint)
    embedding_of(model).weight.data[:] = math.nan
    large = LossWatch(lambda step: [f"r{n}" for n in range(16)], max_loss_ratio=2)
    with pytest.raises(UserError) as told:
        train(build_trainer(tmp_path, tiny_checkpoint, callbacks=[large], model=model))
    assert told.value.where == "r0, r1, r2, r3, r4, r5, r6, r7 and 8 more"
