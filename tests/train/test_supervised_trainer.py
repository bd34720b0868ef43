from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from configs.schema import TrainConfig
from train.adapter import TrainFiles, build_model, build_trainer, load_rows
from train.progress import TrainingProgress
from train.supervised_trainer import IGNORED, SupervisedTrainer


@pytest.fixture
def trainer(
    train_config: TrainConfig,
    train_files: TrainFiles,
    tiny_checkpoint: Path,
    tokenizer: PreTrainedTokenizerBase,
) -> SupervisedTrainer:
    return build_trainer(
        train_config,
        model=build_model(train_config, tiny_checkpoint),
        tokenizer=tokenizer,
        train_rows=load_rows(train_files.train_rows),
        validation_rows=load_rows(train_files.validation_rows),
        folder=train_files.checkpoints,
        progress=TrainingProgress(Console(quiet=True)),
    )


def compute_loss(
    trainer: SupervisedTrainer, batch: dict[str, torch.Tensor], num_items: int | None = None
) -> float:
    assert trainer.model is not None
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=num_items)
    return float(loss)


def first_batch(trainer: SupervisedTrainer) -> dict[str, torch.Tensor]:
    return dict(next(iter(trainer.get_train_dataloader())))


@contextmanager
def projected_positions(model: torch.nn.Module) -> Iterator[list[int]]:
    """Counts the positions that go through the head."""
    counts: list[int] = []

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        counts.append(inputs[0].shape[:-1].numel())

    handle = model.get_output_embeddings().register_forward_pre_hook(count)  # type: ignore[operator]
    yield counts
    handle.remove()


def keep_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Filled with each trained parameter's gradient as it stands when the optimizer takes it."""
    gradients: dict[str, torch.Tensor] = {}

    def keep(name: str, parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None
        gradients[name] = parameter.grad.clone()

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(partial(keep, name))
    return gradients


def test_loss_is_the_cross_entropy_of_the_labelled_tokens(trainer: SupervisedTrainer) -> None:
    batch = first_batch(trainer)
    loss = compute_loss(trainer, batch, 7)
    assert trainer.model is not None
    logits = trainer.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1),
        batch["labels"][:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
    assert loss == pytest.approx(expected.item() / 7, rel=1e-5)


def test_loss_is_that_of_trl(trainer: SupervisedTrainer) -> None:
    batch = first_batch(trainer)
    ours = compute_loss(trainer, batch, 5)
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch), num_items_in_batch=5)
    assert ours == pytest.approx(theirs.item(), rel=1e-3)


def test_no_position_without_a_label_is_projected_but_those_beside_one(
    trainer: SupervisedTrainer,
) -> None:
    batch = first_batch(trainer)
    assert trainer.model is not None
    with projected_positions(trainer.model) as counts:
        compute_loss(trainer, batch)
    labelled_columns = (batch["labels"][:, 1:] != IGNORED).any(dim=0).sum().item()
    num_rows, num_columns = batch["labels"].shape
    assert counts == [num_rows * labelled_columns]
    assert labelled_columns < num_columns / 2


def test_one_batch_of_8_gives_the_gradient_of_8_batches_of_1(
    train_config: TrainConfig,
    train_files: TrainFiles,
    tiny_checkpoint: Path,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    adapters = []
    for micro_batch_rows in (1, 8):
        config = train_config.model_copy(
            update={
                "num_steps": 1,
                "batch_rows": 8,
                "micro_batch_rows": micro_batch_rows,
                "quantization": "none",
            }
        )
        model = build_model(config, tiny_checkpoint).float()
        built = build_trainer(
            config,
            model=model,
            tokenizer=tokenizer,
            train_rows=load_rows(train_files.train_rows, limit=8),
            validation_rows=load_rows(train_files.validation_rows),
            folder=train_files.checkpoints / str(micro_batch_rows),
            progress=TrainingProgress(Console(quiet=True)),
        )
        gradients = keep_gradients(model)
        built.train()
        adapters.append(gradients)
    for name, gradient in adapters[0].items():
        torch.testing.assert_close(gradient, adapters[1][name], rtol=1e-5, atol=1e-6)
    assert any(gradient.abs().max() > 1e-4 for gradient in adapters[0].values())
