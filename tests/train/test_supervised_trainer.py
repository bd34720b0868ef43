from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from configs.schema import LoraConfig, TrainConfig
from tests.tiny_mistral3 import NUM_TEKKEN_TOKENS, build_tiny_mistral3
from tests.train.largest_tensors import LargestTensors
from train import head_loss
from train.adapter import build_model
from train.batches import IGNORED, FlatCollator
from train.job import TrainFiles
from train.rows import load_rows
from train.supervised_trainer import SupervisedTrainer
from train.trainers import build_supervised_trainer, plan_steps, shared_arguments

IN_FP32 = {"lora": LoraConfig(rank=4, dtype="float32")}
BuildTrainer = Callable[..., SupervisedTrainer]


@pytest.fixture
def build_trainer(
    train_config: TrainConfig,
    train_files: TrainFiles,
    tiny_checkpoint: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> BuildTrainer:
    """Builds the trainer of the tiny checkpoint with settings of its own."""

    def build(
        model: PeftModel | None = None, *, num_rows: int | None = None, **settings: object
    ) -> SupervisedTrainer:
        config = train_config.model_copy(update=settings)
        train_rows = load_rows(train_files.train_rows, limit=num_rows)
        folder = tmp_path / f"checkpoints-{len(list(tmp_path.iterdir()))}"
        steps = plan_steps(config, train_rows.lengths, max_length=128)
        return build_supervised_trainer(
            config,
            model=model or build_model(config, tiny_checkpoint),
            tokenizer=tokenizer,
            train_rows=train_rows,
            steps=steps,
            validation_rows=load_rows(train_files.validation_rows),
            max_length=128,
            arguments=shared_arguments(
                config,
                num_steps=len(steps) // config.batch_rows,
                folder=folder,
            ),
            callbacks=[],
        )

    return build


@pytest.fixture
def trainer(build_trainer: BuildTrainer) -> SupervisedTrainer:
    return build_trainer()


def compute_loss(
    trainer: SupervisedTrainer, batch: dict[str, torch.Tensor], num_items: int | None = None
) -> float:
    assert trainer.model is not None
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=num_items)
    return float(loss.detach())


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
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = trainer.model(**inputs).logits
    expected = F.cross_entropy(
        logits[0, :-1].float(), batch["labels"][0, 1:], ignore_index=IGNORED, reduction="sum"
    )
    assert loss == pytest.approx(expected.item() / 7, rel=1e-5)


def test_loss_is_that_of_trl(trainer: SupervisedTrainer) -> None:
    batch = first_batch(trainer)
    ours = compute_loss(trainer, batch, 5)
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch), num_items_in_batch=5)
    assert ours == pytest.approx(theirs.item(), rel=1e-3)


def test_no_position_without_a_label_is_projected(trainer: SupervisedTrainer) -> None:
    batch = first_batch(trainer)
    assert trainer.model is not None
    with projected_positions(trainer.model) as counts:
        compute_loss(trainer, batch)
    assert counts == [(batch["labels"] != IGNORED).sum()]
    assert counts[0] < batch["labels"].numel() / 2


def gradients_of_one_step(trainer: SupervisedTrainer) -> dict[str, torch.Tensor]:
    assert trainer.model is not None
    gradients = keep_gradients(trainer.model)
    trainer.train()
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients.values())
    return gradients


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 4])
def test_one_batch_of_8_gives_the_gradient_of_smaller_ones(
    micro_batch_rows: int,
    build_trainer: BuildTrainer,
    train_config: TrainConfig,
    tiny_checkpoint: Path,
) -> None:
    settings = {"num_steps": 1, "batch_rows": 8, "quantization": "none"} | IN_FP32
    gradients = []
    for rows in (micro_batch_rows, 8):
        model = build_model(train_config.model_copy(update=settings), tiny_checkpoint).float()
        trainer = build_trainer(model, num_rows=8, micro_batch_rows=rows, **settings)
        gradients.append(gradients_of_one_step(trainer))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-6)


def test_packing_gives_the_gradient_of_single_rows(
    build_trainer: BuildTrainer, train_config: TrainConfig, tiny_checkpoint: Path
) -> None:
    settings = {"num_steps": 1, "micro_batch_rows": 1, "quantization": "none"} | IN_FP32
    model = build_model(train_config.model_copy(update=settings), tiny_checkpoint).float()
    packed = build_trainer(model, num_rows=8, packing=True, num_epochs=1.0, **settings)
    num_packs = len(packed.get_train_dataloader())
    assert 1 < num_packs < 8
    settings_of_all = settings | {"batch_rows": num_packs}
    gradients = []
    for extra in ({"packing": True} | settings_of_all, settings | {"batch_rows": 8}):
        model = build_model(train_config.model_copy(update=settings), tiny_checkpoint).float()
        gradients.append(gradients_of_one_step(build_trainer(model, num_rows=8, **extra)))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-6)


def test_validation_loss_is_the_mean_over_labels_however_rows_are_batched(
    build_trainer: BuildTrainer,
    train_config: TrainConfig,
    train_files: TrainFiles,
    tiny_checkpoint: Path,
) -> None:
    settings = {"quantization": "none"} | IN_FP32
    model = build_model(train_config.model_copy(update=settings), tiny_checkpoint).float()
    found = [
        build_trainer(model, **settings, **batching).evaluate()["eval_loss"]
        for batching in ({"micro_batch_rows": 1}, {"micro_batch_rows": 4}, {"packing": True})
    ]
    rows = load_rows(train_files.validation_rows)
    batch = FlatCollator(rows)([{"rows": list(range(len(rows)))}])
    labels = batch.pop("labels")[0, 1:]
    with torch.no_grad():
        logits = model(**batch).logits[0, :-1]
    expected = F.cross_entropy(logits, labels, ignore_index=IGNORED)
    assert found == pytest.approx([expected.item()] * 3, rel=1e-5)


@pytest.mark.parametrize("of_trl", [False, True])
def test_neither_all_logits_nor_a_head_in_fp32_are_ever_held(
    of_trl: bool, build_trainer: BuildTrainer, train_config: TrainConfig, tmp_path: Path
) -> None:
    hidden, num_tokens = 32, 700
    checkpoint = build_tiny_mistral3(
        tmp_path / "mistral3", vocab_size=NUM_TEKKEN_TOKENS, hidden=hidden, num_layers=1
    )
    trainer = build_trainer(build_model(train_config, checkpoint))
    ids = torch.randint(20, NUM_TEKKEN_TOKENS, (1, num_tokens))
    boundaries = torch.tensor([0, num_tokens], dtype=torch.int32)
    batch = {
        "input_ids": ids,
        "labels": ids.clone(),
        "position_ids": torch.arange(num_tokens)[None],
        "cu_seq_lens_q": boundaries,
        "max_length_q": num_tokens,
    }
    trainer_class = SFTTrainer if of_trl else SupervisedTrainer
    assert trainer.model is not None
    with LargestTensors() as seen:
        loss = trainer_class.compute_loss(
            trainer, trainer.model, dict(batch), num_items_in_batch=num_tokens
        )
        loss.backward()
    assert torch.Size((NUM_TEKKEN_TOKENS, hidden)) not in seen.shapes_in_fp32
    assert seen.largest < num_tokens * NUM_TEKKEN_TOKENS / 2
    if not of_trl:
        assert seen.largest <= head_loss.TILE_LOGITS
