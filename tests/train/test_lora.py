import json
import warnings
from pathlib import Path
from typing import Any, Literal

import datasets
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from safetensors.torch import load_file
from transformers import PreTrainedModel, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from configs.errors import UserError
from configs.schema import LoraConfig, TrainConfig
from data.tokens.load_tokenizer import load_tokenizer
from tests.tiny_mistral3 import build_tiny_mistral3
from train.batches import IGNORED
from train.lora import (
    Batch,
    build_adapter,
    build_optimizer,
    keep_adapter_dtype,
    save_adapter,
)
from train.quantized_base import load_base

TEXT = torch.arange(20, 84)[None]
NAME = "owner/base-model"
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "eva": {"init": "eva"},
    "eva and dora": {"init": "eva", "dora": True},
    "pissa": {"init": "pissa"},
    "pissa and rslora": {"init": "pissa", "rslora": True},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(tmp_path_factory.mktemp("mistral3") / "tiny")


def build_config(**lora: Any) -> TrainConfig:  # noqa: ANN401 - LoraConfig's own
    return TrainConfig(
        num_steps=1,
        quantization="none" if lora.get("init") == "pissa" else "nf4",
        lora=LoraConfig(**{"rank": 4, "alpha": 8, **lora}),
    )


def build_batches(num_batches: int = 3) -> list[Batch]:
    """Text of few words over and over, so that its activations have principal directions."""
    generator = torch.Generator().manual_seed(0)
    batches: list[Batch] = []
    for _ in range(num_batches):
        ids = torch.randint(30, 42, (1, 80), generator=generator)
        labels = ids.clone()
        labels[:, :20] = IGNORED
        batches.append({"input_ids": ids, "labels": labels, "max_length_q": 80})
    return batches


def load(checkpoint: Path, config: TrainConfig, *, in_fp32: bool = False) -> PreTrainedModel:
    base = load_base(checkpoint, quantization=config.quantization)
    return base.float() if in_fp32 else base


def pretend_training(model: PeftModel) -> None:
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            step = torch.randn(parameter.shape) * 0.05
            parameter.data += step.to(parameter.dtype)
    model.eval()


@torch.no_grad()
def answer(model: torch.nn.Module) -> torch.Tensor:
    logits: torch.Tensor = model(TEXT).logits
    return logits.float()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_saved_adapter_on_the_original_base_is_the_trained_model(
    variant: str, mistral3: Path, tmp_path: Path
) -> None:
    config = build_config(**VARIANTS[variant], dtype="float32").model_copy(
        update={"quantization": "none"}
    )
    base = load(mistral3, config, in_fp32=True)
    plain = answer(base)
    model = build_adapter(base, config, activations=build_batches())
    assert torch.allclose(answer(model), plain, atol=1e-6)
    pretend_training(model)
    trained = answer(model)
    assert (trained - plain).abs().max() > 0.1
    save_adapter(model, tmp_path / "adapter", base_name=NAME)
    assert torch.equal(answer(model), trained)
    reloaded = PeftModel.from_pretrained(
        load(mistral3, config, in_fp32=True), tmp_path / "adapter"
    ).eval()
    assert torch.allclose(answer(reloaded), trained, atol=1e-6)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "pissa" not in name])
def test_on_a_4_bit_base_too(variant: str, mistral3: Path, tmp_path: Path) -> None:
    config = build_config(**VARIANTS[variant], dtype="float32")
    base = load(mistral3, config)
    plain = answer(base)
    model = build_adapter(base, config, activations=build_batches())
    # DoRA stretches in bf16, and its stretch by one is not always one.
    assert torch.allclose(answer(model), plain, atol=0.01 if config.lora.dora else 0)
    pretend_training(model)
    save_adapter(model, tmp_path / "adapter", base_name=NAME)
    reloaded = PeftModel.from_pretrained(load(mistral3, config), tmp_path / "adapter").eval()
    assert torch.equal(answer(reloaded), answer(model))
    assert (answer(model) - plain).abs().max() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_and_configuration_are_those_that_servers_read(
    variant: str, mistral3: Path, tmp_path: Path
) -> None:
    config = build_config(**VARIANTS[variant])
    model = build_adapter(load(mistral3, config), config, activations=build_batches())
    save_adapter(model, tmp_path / "adapter", base_name=NAME)
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    modules = {name.split(".lora_")[0] for name in tensors}
    assert len(modules) == 2 * 7
    assert "base_model.model.model.language_model.layers.0.self_attn.q_proj" in modules
    assert all(n.startswith("base_model.model.model.language_model.layers.") for n in modules)
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == NAME
    assert saved["inference_mode"] is True
    assert saved["init_lora_weights"] is True
    assert saved["eva_config"] is None
    assert saved["task_type"] == "CAUSAL_LM"
    assert saved["use_rslora"] == config.lora.rslora
    assert saved["use_dora"] == config.lora.dora
    assert str(tmp_path.parents[0]) not in json.dumps(saved)
    rank = 8 if config.lora.init == "pissa" else 4
    assert {t.shape[0] for name, t in tensors.items() if "lora_A" in name} == {rank}
    assert saved["r"] == rank


def test_with_its_vision_tower_the_same_layers_are_adapted(mistral3: Path, tmp_path: Path) -> None:
    names = []
    for with_images in (False, True):
        base = load_base(mistral3, quantization="nf4", with_images=with_images)
        model = build_adapter(base, build_config())
        folder = tmp_path / str(with_images)
        save_adapter(model, folder, base_name=NAME)
        names.append(load_file(folder / "adapter_model.safetensors").keys())
    assert names[0] == names[1]
    assert (tmp_path / "False/adapter_config.json").read_text() == (
        tmp_path / "True/adapter_config.json"
    ).read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = load_base(mistral3, quantization="nf4", with_images=True)
        reloaded = PeftModel.from_pretrained(whole, tmp_path / "False")
    adapted = [name for name, _ in reloaded.named_modules() if name.endswith("lora_A")]
    assert len(adapted) == 2 * 7


@pytest.mark.parametrize("variant", ["plain", "eva", "pissa"])
def test_the_seed_decides_the_first_weights(variant: str, mistral3: Path) -> None:
    def first_weights(seed: int) -> dict[str, torch.Tensor]:
        config = build_config(**VARIANTS[variant]).model_copy(update={"seed": seed})
        model = build_adapter(load(mistral3, config), config, activations=build_batches())
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    once = first_weights(1)
    torch.randn(3)
    again = first_weights(1)
    for name, tensor in once.items():
        assert torch.equal(tensor, again[name]), name
    if variant == "plain":
        other = first_weights(2)
        assert not any(torch.equal(t, other[n]) for n, t in once.items() if "lora_A" in n)


def test_eva_begins_in_the_directions_of_the_supervised_activations(mistral3: Path) -> None:
    config = build_config(init="eva", dtype="float32").model_copy(update={"quantization": "none"})
    base = load(mistral3, config, in_fp32=True)
    batches = build_batches()
    inputs: list[torch.Tensor] = []
    layer = base.get_submodule("model.language_model.layers.1.mlp.down_proj")
    handle = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    for batch in batches:
        base(input_ids=batch["input_ids"])
    handle.remove()
    seen = torch.cat([one[0, 20:] for one in inputs]).detach()
    model = build_adapter(base, config, activations=batches)
    name = "base_model.model.model.language_model.layers.1.mlp.down_proj.lora_A.default.weight"
    a = model.get_parameter(name).detach()
    assert torch.allclose(a @ a.T, torch.eye(4), atol=1e-4)
    # What the 4 directions hold of the activations' variance, and the best that 4 can.
    centred = seen - seen.mean(dim=0)
    held = (centred @ a.T).square().sum() / centred.square().sum()
    singular = torch.linalg.svdvals(centred)
    best = singular[:4].square().sum() / singular.square().sum()
    assert held > 0.95 * best
    assert held > 3 * 4 / centred.shape[1]


def test_eva_needs_enough_supervised_tokens(mistral3: Path) -> None:
    config = build_config(init="eva", rank=16)
    short = build_batches(2)
    for batch in short:
        batch["labels"][:, :70] = IGNORED
    with pytest.raises(UserError, match="at least 16 supervised tokens"):
        build_adapter(load(mistral3, config), config, activations=short)


def test_eva_gives_up_on_activations_without_lasting_directions(
    mistral3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.lora.MAX_EVA_PASSES", 2)
    config = build_config(init="eva")
    with pytest.raises(UserError, match="no directions that last, in 2 passes"):
        build_adapter(load(mistral3, config), config, activations=build_batches())


def test_pissa_takes_its_adapter_out_of_the_base(mistral3: Path) -> None:
    config = build_config(init="pissa", dtype="float32")
    base = load(mistral3, config, in_fp32=True)
    name = "model.language_model.layers.0.self_attn.q_proj"
    before = base.get_parameter(f"{name}.weight").clone()
    model = build_adapter(base, config)
    layer = model.get_submodule(f"base_model.model.{name}")
    assert isinstance(layer, LoraLinear)
    update = layer.get_delta_weight("default")
    left = layer.get_base_layer().weight
    assert isinstance(left, torch.Tensor)
    assert torch.allclose(left + update, before, atol=1e-6)
    singular = torch.linalg.svdvals(before)
    assert torch.allclose(torch.linalg.svdvals(update)[:4], singular[:4], rtol=0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("dora", [False, True])
def test_the_adapter_has_its_dtype_whatever_the_trainer_makes_of_it(
    dora: bool, dtype: Literal["bfloat16", "float32"], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = build_config(dora=dora, dtype=dtype)
    model = build_adapter(load(tiny_checkpoint, config), config)
    rows = [{"input_ids": TEXT[0].tolist(), "labels": TEXT[0].tolist()}]
    SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            bf16=False,
            max_length=None,
            report_to="none",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=load_tokenizer(tiny_checkpoint),
    )
    keep_adapter_dtype(model, dtype)
    trained = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad}
    magnitudes = {name for name in trained if "lora_magnitude_vector" in name}
    assert len(magnitudes) == (2 * 7 if dora else 0)
    for name, found in trained.items():
        wanted = torch.float32 if name in magnitudes else getattr(torch, dtype)
        assert found == wanted, name


def train(
    checkpoint: Path, config: TrainConfig, folder: Path, *, resume: bool = False
) -> tuple[PeftModel, Trainer]:
    """Four steps with a checkpoint after two."""
    model = build_adapter(load(checkpoint, config), config)
    rows = [{"input_ids": TEXT[0] + n, "labels": TEXT[0] + n} for n in range(4)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        save_steps=2,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        optimizers=(build_optimizer(model, config), None),
    )
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
    return model, trainer


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_8bit"])
def test_lora_plus_trains_b_faster_than_a_and_resumes(
    optimizer: str, mistral3: Path, tmp_path: Path
) -> None:
    config = build_config(plus_ratio=16, dtype="float32").model_copy(
        update={"optimizer": optimizer, "learning_rate": 1e-4, "weight_decay": 0.01}
    )
    model, trainer = train(mistral3, config, tmp_path)
    assert trainer.optimizer is not None
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert rates.keys() == {id(parameter) for parameter in trained.values()}
    for name, parameter in trained.items():
        rate, decay = rates[id(parameter)]
        assert rate == pytest.approx(1e-4 * (16 if "lora_B" in name else 1))
        assert decay == 0.01
    resumed, _ = train(mistral3, config, tmp_path, resume=True)
    for name, parameter in resumed.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, trained[name]), name


def test_without_a_ratio_the_trainer_keeps_its_own_optimizer(mistral3: Path) -> None:
    config = build_config()
    assert build_optimizer(build_adapter(load(mistral3, config), config), config) is None


def test_a_resumed_pissa_training_is_saved_as_the_unbroken_one(
    mistral3: Path, tmp_path: Path
) -> None:
    config = build_config(init="pissa", dtype="float32").model_copy(update={"learning_rate": 1e-3})
    files = []
    for resume in (False, True):
        model, _ = train(mistral3, config, tmp_path / "checkpoints", resume=resume)
        save_adapter(model, tmp_path / str(resume), base_name=NAME)
        files.append((tmp_path / str(resume) / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]
