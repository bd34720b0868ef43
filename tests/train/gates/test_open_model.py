import shutil
import weakref
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from configs.errors import UserError
from data.conversation import question_and_answer
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.gates.tiny_adapter import TinyRun, train_adapter
from train.gates import open_model
from train.gates.base_choice import better_base, choose_base
from train.gates.open_model import is_offloaded, open_checkpoint, open_with_adapters
from train.gates.scoring import HeldOutRow

CONVERSATION = question_and_answer("Q", "A", id="0")


@pytest.fixture(scope="module")
def second(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second") / "adapter"
    return train_adapter(tiny_run.checkpoint, folder, num_steps=8, seed=11)


def write_dora(checkpoint: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    lora = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(str(folder))
    return folder


def test_adapters_are_run_as_peft_runs_them(tiny_run: TinyRun) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint, dtype=torch.float32)
    row = tiny_run.rows[0]
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base, tiny_run.adapter)(
            torch.from_numpy(row.ids.astype(np.int64))[None]
        ).logits[0]
    own = row.ids[row.scored]
    wanted = logits.log_softmax(-1)[row.scored - 1, own]
    with open_with_adapters(tiny_run.checkpoint, [(tiny_run.adapter, 1.0)], base="bf16") as scorer:
        found = scorer.score([row]).log_probs
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_several_adapters_act_together_each_by_its_weight(tiny_run: TinyRun, second: Path) -> None:
    def loss(*adapters: tuple[Path, float]) -> float:
        with open_with_adapters(tiny_run.checkpoint, adapters, base="bf16") as scorer:
            return scorer.score(tiny_run.rows).loss

    first = (tiny_run.adapter, 1.0)
    alone = loss(first)
    assert loss((second, 0.0), first) == pytest.approx(alone, rel=1e-5)
    assert loss(first, (second, 0.7)) != pytest.approx(alone, rel=1e-2)
    assert loss(first, (second, 0.7)) == pytest.approx(loss((second, 0.7), first), rel=1e-5)
    halves = (tiny_run.adapter, 0.5), (tiny_run.adapter, 0.5)
    assert loss(*halves) == pytest.approx(alone, rel=1e-5)


def test_no_adapter_is_the_base(tiny_run: TinyRun) -> None:
    with open_with_adapters(tiny_run.checkpoint, [], base="bf16") as scorer:
        unadapted = scorer.score(tiny_run.rows).loss
    with open_checkpoint(tiny_run.checkpoint) as scorer:
        assert scorer.score(tiny_run.rows).loss == unadapted


@pytest.mark.parametrize("num_others", [0, 1])
def test_a_dora_adapter_is_neither_weighted_nor_summed(
    num_others: int, tiny_run: TinyRun, tmp_path: Path
) -> None:
    dora = write_dora(tiny_run.checkpoint, tmp_path / "dora")
    adapters = [(dora, 0.5)] if not num_others else [(dora, 1.0), (tiny_run.adapter, 1.0)]
    with (
        pytest.raises(UserError, match="cannot be weighted or summed"),
        open_with_adapters(tiny_run.checkpoint, adapters, base="bf16"),
    ):
        pass
    with open_with_adapters(tiny_run.checkpoint, [(dora, 1.0)], base="bf16") as scorer:
        assert scorer.score(tiny_run.rows).loss > 0


@pytest.mark.parametrize("with_second", [False, True])
def test_weights_that_do_not_fit_are_read_when_they_are_needed(
    with_second: bool, tiny_run: TinyRun, second: Path
) -> None:
    adapters = [(tiny_run.adapter, 1.0)] + [(second, 0.5)] * with_second
    with open_with_adapters(tiny_run.checkpoint, adapters, base="bf16") as scorer:
        wanted = scorer.score(tiny_run.rows)
        answers = scorer.answer(tiny_run.rows[:2], max_tokens=4)
    with open_with_adapters(
        tiny_run.checkpoint, adapters, base="bf16", max_memory={"cpu": 250_000}
    ) as scorer:
        assert any(parameter.is_meta for parameter in scorer.model.parameters())
        found = scorer.score(tiny_run.rows)
        assert scorer.answer(tiny_run.rows[:2], max_tokens=4) == answers
    np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=1e-4, atol=1e-5)


def test_a_dora_adapter_on_weights_that_do_not_fit_is_refused(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    dora = write_dora(tiny_run.checkpoint, tmp_path / "dora")
    with (
        pytest.raises(UserError, match="needs the base's weights in memory"),
        open_with_adapters(
            tiny_run.checkpoint, [(dora, 1.0)], base="bf16", max_memory={"cpu": 150_000}
        ),
    ):
        pass


def test_a_model_that_fits_is_loaded_without_hooks(tiny_run: TinyRun) -> None:
    with open_checkpoint(tiny_run.checkpoint) as scorer:
        assert not any(hasattr(module, "_hf_hook") for module in scorer.model.modules())
        assert not is_offloaded(scorer.model)


def test_a_large_model_is_computed_in_bf16(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_checkpoint(tiny_run.checkpoint) as scorer:
        assert {one.dtype for one in scorer.model.parameters()} == {torch.float32}
        precise = scorer.score(tiny_run.rows).log_probs
    monkeypatch.setattr(open_model, "SMALL_BYTES", 0)
    with open_checkpoint(tiny_run.checkpoint) as scorer:
        assert {one.dtype for one in scorer.model.parameters()} == {torch.bfloat16}
        found = scorer.score(tiny_run.rows).log_probs
    np.testing.assert_allclose(found, precise, atol=0.2)


@pytest.mark.parametrize("base", ["bf16", "nf4"])
def test_a_vision_language_model_is_opened_as_its_own_class_without_its_eyes(
    base: Literal["bf16", "nf4"], tmp_path: Path
) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "tiny")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    modules = r".*language_model.*(q_proj|down_proj)"
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=modules))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    ids = np.arange(20, 60, dtype=np.int32)
    row = HeldOutRow(CONVERSATION, ids, np.ones(40, np.int8))
    with torch.no_grad():
        logits = adapted(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
    wanted = logits.log_softmax(-1)[row.scored - 1, ids[row.scored]].numpy()
    adapters = [(tmp_path / "adapter", 1.0)]
    memories: list[dict[int | str, int] | None] = [None]
    if base == "bf16":
        memories.append({"cpu": 200_000})
    for max_memory in memories:
        with open_with_adapters(checkpoint, adapters, base=base, max_memory=max_memory) as scorer:
            assert not any("vision_tower" in name for name, _ in scorer.model.named_parameters())
            found = scorer.score([row]).log_probs
        np.testing.assert_allclose(found, wanted, atol=1e-3 if base == "bf16" else 0.2)


@pytest.mark.parametrize("kind", ["checkpoint", "bf16", "nf4"])
def test_memory_is_freed_even_where_the_scorer_is_kept(
    kind: Literal["checkpoint", "bf16", "nf4"], tiny_run: TinyRun
) -> None:
    with (
        open_checkpoint(tiny_run.checkpoint)
        if kind == "checkpoint"
        else open_with_adapters(tiny_run.checkpoint, [(tiny_run.adapter, 1.0)], base=kind)
    ) as scorer:
        weights = [weakref.ref(one) for one in scorer.model.parameters()]
        assert len(weights) >= 2 * 7
    assert all(one() is None for one in weights)


def test_the_better_base_is_that_with_the_lower_loss_and_bf16_of_equal_ones() -> None:
    assert better_base({"bf16": 1.0, "nf4": 0.99}) == "nf4"
    assert better_base({"bf16": 0.99, "nf4": 1.0}) == "bf16"
    assert better_base({"bf16": 1.0, "nf4": 0.9995}) == "bf16"


def test_choosing_a_base_measures_both(tiny_run: TinyRun, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint")
    choice = choose_base(checkpoint, [(tiny_run.adapter, 1.0)], tiny_run.rows)
    assert choice.losses.keys() == {"bf16", "nf4"}
    assert choice.losses["bf16"] != choice.losses["nf4"]
    assert choice.base == better_base(choice.losses)
    for base, loss in choice.losses.items():
        with open_with_adapters(checkpoint, [(tiny_run.adapter, 1.0)], base=base) as scorer:
            assert scorer.score(tiny_run.rows).loss == loss
