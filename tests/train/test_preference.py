import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from configs.schema import LoraConfig, PreferenceConfig, TrainConfig
from tests.train.preference_pairs import NUM_TRAIN, NUM_VALIDATION, build_trainer, write_pairs
from train.adapter import build_model
from train.batches import IGNORED
from train.checkpoints import MARKER, latest_resumable
from train.lora import save_adapter
from train.pairs import PairCollator, load_pairs
from train.preference import REFERENCE_FILE, reward_facts
from train.preference_trainer import FlatModel, PreferenceTrainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, tokenizer)
    return folder


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    return train_config.model_copy(update={"method": "preference"})


def in_fp32(config: TrainConfig, **changes: object) -> TrainConfig:
    exact = {"quantization": "none", "lora": LoraConfig(dtype="float32")}
    return config.model_copy(update=exact | changes)


def build_fp32_model(config: TrainConfig, checkpoint: Path) -> PeftModel:
    model = build_model(config, checkpoint)
    model.float()
    return model


def adapter_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in get_peft_model_state_dict(model).items()}


def log_probs(model: nn.Module, side: Any) -> torch.Tensor:  # noqa: ANN401
    """Of each row's answer: the sum over its supervised tokens, from plain logits."""
    sums = []
    for number in range(len(side)):
        ids = torch.tensor(side.input_ids[side.span(number)], dtype=torch.long)[None]
        mask = torch.tensor(side.assistant_mask[side.span(number)], dtype=torch.bool)
        cut = torch.tensor([0, ids.shape[1]], dtype=torch.int32)
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                position_ids=torch.arange(ids.shape[1])[None],
                cu_seq_lens_q=cut,
                cu_seq_lens_k=cut,
                max_length_q=ids.shape[1],
                max_length_k=ids.shape[1],
            ).logits
        of_tokens = logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        sums.append(of_tokens[mask[1:]].sum())
    return torch.stack(sums)


# The loss.


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_the_loss_is_that_of_the_papers(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path, loss: str
) -> None:
    beta = 0.3
    preference = PreferenceConfig(beta=beta, loss=loss)  # type: ignore[arg-type]
    config = in_fp32(config, preference=preference)
    model = build_fp32_model(config, tiny_checkpoint)
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path, model=model)
    trainer.train()
    found = trainer.evaluate()
    pairs = load_pairs(data / "validation.parquet")
    model.eval()
    policy = [log_probs(model, side) for side in (pairs.preferred, pairs.rejected)]
    with model.disable_adapter():
        base = [log_probs(model, side) for side in (pairs.preferred, pairs.rejected)]
    gains = [ours - theirs for ours, theirs in zip(policy, base, strict=True)]
    margin = gains[0] - gains[1]
    if loss == "sigmoid":
        losses = -torch.log(torch.sigmoid(beta * margin))
    elif loss == "hinge":
        losses = torch.clamp(1 - beta * margin, min=0)
    else:
        lengths = [
            torch.tensor([int(side.assistant_mask[side.span(n)].sum()) for n in range(len(side))])
            for side in (pairs.preferred, pairs.rejected)
        ]
        losses = (gains[0] / lengths[0] - gains[1] / lengths[1] - 1 / (2 * beta)) ** 2
    assert margin.abs().max() > 1
    assert found["eval_loss"] == pytest.approx(losses.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("quantization", "lora"),
    [
        ("nf4", LoraConfig()),
        ("nf4", LoraConfig(dora=True, dtype="float32")),
        ("none", LoraConfig(init="pissa", rank=4, dtype="float32")),
        ("nf4", LoraConfig(rslora=True, plus_ratio=4)),
    ],
)
def test_the_first_loss_is_that_of_no_margin(
    config: TrainConfig,
    tiny_checkpoint: Path,
    data: Path,
    tmp_path: Path,
    quantization: str,
    lora: LoraConfig,
) -> None:
    config = config.model_copy(update={"quantization": quantization, "lora": lora})
    model = build_model(config, tiny_checkpoint)
    before = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path, model=model)
    # The base is as it was, and TRL's copy of the adapter is gone.
    after = dict(model.named_parameters())
    assert all(torch.equal(parameter, after[name]) for name, parameter in before.items())
    assert list(model.peft_config) == ["default"]
    assert not any(".ref." in name for name in after)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == 0


def test_rows_behind_one_another_are_scored_as_each_alone(
    config: TrainConfig, tiny_checkpoint: Path
) -> None:
    model = build_fp32_model(in_fp32(config), tiny_checkpoint).eval()
    torch.manual_seed(1)
    ids = torch.randint(5, 300, (3, 6))
    attended = torch.tensor([[1] * 4 + [0] * 2, [1] * 6, [1] * 2 + [0] * 4])
    # On the first token too, which the row before is not to foresee.
    labels = ids.masked_fill((attended == 0) | (torch.arange(6) == 2), IGNORED)
    scores = FlatModel(model, model)(
        input_ids=ids,
        attention_mask=attended,
        labels=labels,
        fused_lm_head=True,
        use_cache=False,
    )
    for row, length in enumerate((4, 6, 2)):
        cut = torch.tensor([0, length], dtype=torch.int32)
        logits = model(
            input_ids=ids[row : row + 1, :length],
            position_ids=torch.arange(length)[None],
            cu_seq_lens_q=cut,
            cu_seq_lens_k=cut,
            max_length_q=length,
            max_length_k=length,
        ).logits[0, :-1]
        expected = logits.log_softmax(-1).gather(-1, ids[row, 1:length, None])[:, 0]
        expected = expected.masked_fill(labels[row, 1:length] == IGNORED, 0)
        assert torch.allclose(scores.log_probs[row, : length - 1], expected, atol=1e-5)
        assert not scores.log_probs[row, length - 1 :].any()
        assert not scores.is_top1[row, length - 1 :].any()


def test_training_tells_preferred_from_rejected_answers(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    config = config.model_copy(update={"num_steps": 15})
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path)
    trainer.train()
    trainer.evaluate()
    history = trainer.state.log_history
    steps = [log for log in history if "loss" in log]
    assert steps[-1]["loss"] < 0.3
    differences = [
        log["eval_logps/chosen"] - log["eval_logps/rejected"]
        for log in history
        if "eval_loss" in log
    ]
    assert differences[-1] > differences[0] + 5
    facts = reward_facts(history)
    assert facts["first_reward_margin"] == facts["first_reward_accuracy"] == 0
    assert facts["last_reward_margin"] == round(steps[-1]["rewards/margins"], 4) > 1
    assert facts["last_reward_accuracy"] == 1
    first, last = facts["first_validation_reward_margin"], facts["last_validation_reward_margin"]
    assert first is not None
    assert last is not None
    assert 0 < first < last
    assert facts["last_validation_reward_accuracy"] == 1


def test_facts_of_a_history_without_figures() -> None:
    assert set(reward_facts([]).values()) == {None}


def test_micro_batches_change_no_gradient(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    trained = []
    for micro_batch_rows in (4, 1):
        changes = {"micro_batch_rows": micro_batch_rows, "num_steps": 3}
        one = in_fp32(config, **changes)
        model = build_fp32_model(one, tiny_checkpoint)
        output = tmp_path / str(micro_batch_rows)
        build_trainer(one, tiny_checkpoint, data, output, model=model).train()
        trained.append(adapter_of(model))
    for name, tensor in trained[0].items():
        assert torch.allclose(tensor, trained[1][name], atol=1e-5), name


# Settings.


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_adapters_dropout_is_as_configured(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path, dropout: float
) -> None:
    config = config.model_copy(update={"lora": LoraConfig(dropout=dropout)})
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path)
    assert trainer.model is not None
    found = {module.p for module in trainer.model.modules() if isinstance(module, nn.Dropout)}
    assert found == ({dropout} if dropout else set())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_adapter_is_trained_in_its_format(
    config: TrainConfig,
    tiny_checkpoint: Path,
    data: Path,
    tmp_path: Path,
    dtype: Any,  # noqa: ANN401
) -> None:
    config = config.model_copy(update={"lora": LoraConfig(dtype=dtype), "num_steps": 1})
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path)
    trainer.train()
    assert trainer.model is not None
    found = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert found == {getattr(torch, dtype)}


def test_tokens_are_counted_without_padding(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    # 6 steps of 4 pairs are one pass over the 24 pairs.
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path)
    trainer.train()
    expected = load_pairs(data / "train.parquet").lengths.sum()
    assert trainer.state.num_input_tokens_seen == expected


# The reference.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pairs in each batch that the reference is asked about."""
    sizes: list[int] = []
    ask = PreferenceTrainer.compute_ref_log_probs

    def counted(self: Any, model: Any, inputs: Any) -> Any:  # noqa: ANN401
        sizes.append(len(inputs["input_ids"]) // 2)
        return ask(self, model, inputs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(PreferenceTrainer, "compute_ref_log_probs", counted)
    return sizes


def test_the_reference_is_asked_once_about_each_pair(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path, asked: list[int]
) -> None:
    config = config.model_copy(update={"num_steps": 13})
    build_trainer(config, tiny_checkpoint, data, tmp_path).train()
    # 13 steps are more than two epochs, with validations in between.
    assert sum(asked) == NUM_TRAIN + NUM_VALIDATION


def test_pairs_that_are_not_met_are_not_asked_about(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path, asked: list[int]
) -> None:
    config = config.model_copy(update={"num_steps": 2})
    build_trainer(config, tiny_checkpoint, data, tmp_path).train()
    assert sum(asked) == 2 * 4 + NUM_VALIDATION


def test_what_the_reference_said_is_kept(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path, asked: list[int]
) -> None:
    build_trainer(config, tiny_checkpoint, data, tmp_path)
    num_asked = len(asked)
    assert num_asked > 0
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path)
    assert len(asked) == num_asked
    trainer.train()
    assert trainer.state.log_history[0]["rewards/margins"] == 0


def test_more_pairs_than_were_asked_about_are_asked_about(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path, asked: list[int]
) -> None:
    build_trainer(config.model_copy(update={"num_steps": 2}), tiny_checkpoint, data, tmp_path)
    build_trainer(config, tiny_checkpoint, data, tmp_path)
    assert sum(asked) == 2 * 4 + NUM_TRAIN + 2 * NUM_VALIDATION
    with np.load(tmp_path / REFERENCE_FILE) as stored:
        assert not np.isnan(stored["train"]).any()


def test_the_reference_is_not_asked_after_training_has_begun(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path)
    collate = trainer.data_collator
    assert isinstance(collate, PairCollator)
    with pytest.raises(AssertionError, match="the reference is gone"):
        trainer.compute_reference(collate, NUM_TRAIN, [[0]])


# What is left on disk.


def test_the_saved_adapter_gives_the_base_the_trained_preference(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    config = in_fp32(config)
    model = build_fp32_model(config, tiny_checkpoint)
    trainer = build_trainer(config, tiny_checkpoint, data, tmp_path / "out", model=model)
    trainer.train()
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter", base_name="base")
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    side = load_pairs(data / "validation.parquet").preferred
    before = log_probs(base, side)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    after = log_probs(loaded, side)
    assert (after - before).abs().min() > 0.1
    assert torch.allclose(after, log_probs(model.eval(), side), atol=1e-3)


def test_killed_training_resumes_to_the_very_bytes_of_an_unbroken_run(
    config: TrainConfig, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    config = config.model_copy(update={"num_steps": 30, "gradient_checkpointing": True})
    unbroken = build_trainer(config, tiny_checkpoint, data, tmp_path / "unbroken")
    unbroken.train()

    output = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.train.preference_process", str(data), str(output)]
    process = subprocess.Popen([*command, str(tiny_checkpoint), config.model_dump_json()])
    deadline = time.monotonic() + 120
    while not list(output.glob(f"checkpoint-*/{MARKER}")):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()

    start = latest_resumable(output)
    assert start is not None
    resumed = build_trainer(config, tiny_checkpoint, data, output)
    resumed.train(resume_from_checkpoint=str(start))
    assert resumed.state.global_step == 30
    assert resumed.model is not None
    assert unbroken.model is not None
    expected, found = adapter_of(unbroken.model), adapter_of(resumed.model)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert resumed.evaluate()["eval_loss"] == unbroken.evaluate()["eval_loss"]
