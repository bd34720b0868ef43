import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from configs.errors import UserError
from configs.schema import LoraConfig
from tests.tiny_mistral3 import build_tiny_mistral3
from train.lora import build_lora
from train.merge import LoraUpdate, merge_adapter, merge_tensor, read_adapter

# Variants of peft's configuration that are merged, and the number of layers they adapt.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True},
    "ranks and scales by pattern": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"q_proj": 16, "model.layers.0.mlp.up_proj": 3},
        "use_rslora": True,
    },
}


def write_adapter(checkpoint: Path, folder: Path, **options: Any) -> Path:  # noqa: ANN401 - peft's
    """An adapter with updates of a size that training gives."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    lora = build_lora(LoraConfig(rank=4, alpha=8), model)
    for name, value in options.items():
        setattr(lora, name, value)
    torch.manual_seed(1)
    train_a_little(get_peft_model(model, lora)).save_pretrained(str(folder))
    return folder


def train_a_little(model: PeftModel) -> PeftModel:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        if "lora_magnitude_vector" in name:
            parameter.data *= 1 + 0.1 * torch.rand_like(parameter)
    return model


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return write_adapter(tiny_checkpoint, tmp_path / "adapter")


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weights_are_pefts_own_in_fp32_rounded_once(
    variant: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", **VARIANTS[variant])
    facts = merge_adapter(tiny_checkpoint, adapter, tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    expected = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(tiny_checkpoint / "model.safetensors")
    assert merged.keys() == before.keys()
    changed = 0
    for name, tensor in merged.items():
        assert tensor.dtype == torch.bfloat16
        difference = (tensor.float() - expected[name].to(torch.bfloat16).float()).abs()
        # The fp32 sums may differ in their last bit, and then fall on either side of a rounding.
        assert (difference > 0).float().mean() < 1e-3
        assert torch.allclose(tensor.float(), expected[name], rtol=2**-8, atol=1e-6)
        changed += not torch.equal(tensor, before[name])
    assert changed == facts["num_merged_tensors"] == 2 * 7


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_fp32_base_is_merged_to_the_last_bits(
    variant: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    exact = tmp_path / "exact"
    AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).save_pretrained(
        exact
    )
    adapter = write_adapter(exact, tmp_path / "adapter", **VARIANTS[variant])
    merge_adapter(exact, adapter, tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(exact)
    expected = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_model_answers_as_base_with_adapter(
    variant: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", **VARIANTS[variant])
    merge_adapter(tiny_checkpoint, adapter, tmp_path / "merged")
    ids = torch.arange(5, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    plain = base(ids).logits.detach()
    wanted = PeftModel.from_pretrained(base, adapter)(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    error = (merged(ids).logits - wanted).norm()
    assert error < 0.05 * (wanted - plain).norm()


def test_a_vision_language_model_is_merged_under_the_names_of_its_files(tmp_path: Path) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "tiny")
    base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    model = train_a_little(get_peft_model(base, build_lora(LoraConfig(rank=4, alpha=8), base)))
    model.save_pretrained(str(tmp_path / "adapter"))
    facts = merge_adapter(checkpoint, tmp_path / "adapter", tmp_path / "merged")
    assert facts["num_merged_tensors"] == 2 * 7
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    ids = torch.arange(20, 60)[None]
    with model.disable_adapter():
        plain = model(ids).logits
    wanted = model(ids).logits
    assert (merged(ids).logits - wanted).norm() < 0.05 * (wanted - plain).norm()


def test_tokenizer_template_and_configuration_are_carried_along(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    merge_adapter(tiny_checkpoint, adapter, tmp_path / "merged")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_sharded_base_keeps_its_shards(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16)
    sharded = tmp_path / "sharded"
    model.save_pretrained(sharded, max_shard_size="60KB")
    names = {file.name for file in sharded.glob("*.safetensors")}
    assert len(names) > 2
    facts = merge_adapter(sharded, adapter, tmp_path / "merged")
    assert {file.name for file in (tmp_path / "merged").glob("*.safetensors")} == names
    assert facts["num_merged_tensors"] == 2 * 7
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_an_update_that_finds_no_tensor_stops_the_merge(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    file = adapter / "adapter_model.safetensors"
    renamed = {n.replace("layers.1.", "layers.9."): t for n, t in load_file(file).items()}
    save_file(renamed, file)
    with pytest.raises(UserError, match=r"updates model\.layers\.9\..* which the base does not"):
        merge_adapter(tiny_checkpoint, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"bias": "lora_only"}, "bias: lora_only"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"something_of_a_later_peft": "on"}, "something_of_a_later_peft: on"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
        ({"init_lora_weights": "olora"}, "olora"),
    ],
)
def test_a_kind_of_lora_that_would_be_merged_wrongly_is_refused(
    told: dict[str, object], named: str, adapter: Path
) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | told))
    with pytest.raises(UserError, match=named):
        read_adapter(adapter)


def test_an_adapter_of_the_embedding_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    lora = PeftLoraConfig(r=4, target_modules=["embed_tokens"])
    get_peft_model(model, lora).save_pretrained(
        str(tmp_path / "adapter"), save_embedding_layers=False
    )
    with pytest.raises(UserError, match="lora_embedding_A"):
        read_adapter(tmp_path / "adapter")


def test_a_quantized_base_is_refused(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((base / "config.json").read_text())
    told = {"quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(config | told))
    with pytest.raises(UserError, match="base's weights are quantized"):
        merge_adapter(base, adapter, tmp_path / "merged")


@pytest.mark.parametrize(
    ("told", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_proj": 4}}, 1.0),
        ({"alpha_pattern": {"k_proj": 4}}, 2.0),
        ({"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 4}}, 1.0),
    ],
)
def test_the_scale_is_alpha_over_the_rank_or_its_root(
    told: dict[str, object], scale: float, adapter: Path
) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    assert read_adapter(adapter)["model.layers.0.self_attn.q_proj"].scale == scale


def test_the_cosine_tells_an_update_that_rounding_swallows() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64).mul(0.02).to(torch.bfloat16)

    def cosine(scale: float) -> float:
        update = LoraUpdate(torch.randn(4, 64), torch.randn(64, 4), scale * 0.02 / 2)
        return merge_tensor(weight, update)[1]

    assert cosine(0.05) > 0.99
    assert cosine(0.0005) < 0.7


def test_missing_disk_space_is_told_before_anything_is_written(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="are needed on this disk"):
        merge_adapter(tiny_checkpoint, adapter, tmp_path / "merged")
    assert list(tmp_path.glob("*merged*")) == []
