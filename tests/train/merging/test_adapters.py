import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from configs.errors import UserError
from tests.train.merging.adapters import write_adapter
from train.merging.adapters import WeightedAdapter, read_adapter, read_adapters

Q_PROJ = "model.layers.0.self_attn.q_proj"


def rewrite_config(adapter: Path, told: dict[str, object]) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))


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
    rewrite_config(adapter, told)
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


def test_a_folder_that_is_no_adapter_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an adapter"):
        read_adapter(tmp_path)


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
    rewrite_config(adapter, told)
    assert read_adapter(adapter)[Q_PROJ].scale == scale


def test_weighted_updates_of_a_layer_become_one(
    adapter: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    second = write_adapter(tiny_checkpoint, tmp_path / "second", seed=2)
    joined = read_adapters([WeightedAdapter(adapter, 0.25), WeightedAdapter(second, -2)])[Q_PROJ]
    first, other = read_adapter(adapter)[Q_PROJ], read_adapter(second)[Q_PROJ]
    expected = 0.25 * 2 * first.b @ first.a - 2 * 2 * other.b @ other.a
    torch.testing.assert_close(joined.scale * joined.b @ joined.a, expected)


def test_one_adapter_may_have_a_weight(adapter: Path) -> None:
    half = read_adapters([WeightedAdapter(adapter, 0.5)])[Q_PROJ]
    whole = read_adapter(adapter)[Q_PROJ]
    torch.testing.assert_close(half.scale * half.b @ half.a, 0.5 * 2 * whole.b @ whole.a)


@pytest.mark.parametrize("weights", [[0.5], [1, 1]])
def test_dora_in_a_sum_is_refused(
    weights: list[float], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", use_dora=True)
    with pytest.raises(UserError, match="only alone"):
        read_adapters([WeightedAdapter(adapter, weight) for weight in weights])


def test_adapters_of_different_bases_are_refused(
    adapter: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = write_adapter(tiny_checkpoint, tmp_path / "other")
    file = other / "adapter_model.safetensors"
    longer = {n: torch.cat([t, t]) if "lora_B" in n else t for n, t in load_file(file).items()}
    save_file(longer, file)
    with pytest.raises(UserError, match="do not belong to one base"):
        read_adapters([WeightedAdapter(adapter), WeightedAdapter(other)])
