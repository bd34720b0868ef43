import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from configs.errors import UserError
from tests.train.merging.adapters import NUM_UPDATES, VARIANTS, load_model, write_adapter
from train.artefacts.vllm_adapter import fold_update, write_vllm_adapter
from train.merging.adapters import LoraUpdate, WeightedAdapter

IDS = torch.arange(20, 60)[None]


@torch.no_grad()
def logits(checkpoint: Path, adapter: Path | None) -> torch.Tensor:
    model: torch.nn.Module = load_model(checkpoint)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    found: torch.Tensor = model(IDS).logits
    return found


def change_config(adapter: Path, **told: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "dora" not in name])
def test_peft_gives_the_answers_of_the_adapter_that_was_trained(
    variant: str, checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(checkpoint, tmp_path / "adapter", **VARIANTS[variant])
    facts = write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=checkpoint)
    wanted, plain = logits(checkpoint, adapter), logits(checkpoint, None)
    assert (wanted - plain).norm() > 0.01 * plain.norm()
    torch.testing.assert_close(logits(checkpoint, tmp_path / "new"), wanted, rtol=0, atol=1e-5)
    assert facts == {
        "rank": 8 if "pattern" in variant else 4,
        "num_layers": NUM_UPDATES,
        "vllm_options": "--enable-lora --max-lora-rank 8",
    }


def test_what_vllm_reads_has_one_rank_and_one_scale(checkpoint: Path, tmp_path: Path) -> None:
    options = VARIANTS["ranks and scales by pattern"]
    adapter = write_adapter(checkpoint, tmp_path / "adapter", **options)
    change_config(adapter, base_model_name_or_path="some/base")
    write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=checkpoint)
    config = json.loads((tmp_path / "new" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 8
    assert config["base_model_name_or_path"] == "some/base"
    for field in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save"):
        assert not config[field], field
    assert config["bias"] == "none"
    assert config["init_lora_weights"] is True
    layers = "gate_proj up_proj down_proj q_proj k_proj v_proj o_proj"
    assert sorted(config["target_modules"]) == sorted(layers.split())
    for name, tensor in load_file(tmp_path / "new" / "adapter_model.safetensors").items():
        assert tensor.shape[0 if "lora_A" in name else 1] == 8


def test_names_are_those_that_vllm_maps(tiny_mistral3: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=tiny_mistral3)
    names = load_file(tmp_path / "new" / "adapter_model.safetensors").keys()
    # hf_to_vllm_mapper turns this prefix into language_model.model., its own name of the layers.
    prefix = "base_model.model.model.language_model.layers."
    assert len(names) == 2 * NUM_UPDATES
    assert all(name.startswith(prefix) for name in names)
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


@pytest.mark.parametrize("prefix", ["model.", "language_model.model."])
def test_an_adapter_under_other_names_is_put_where_it_acts(
    prefix: str, tiny_mistral3: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    wanted = logits(tiny_mistral3, adapter)
    file = adapter / "adapter_model.safetensors"
    renamed = {n.replace("model.language_model.", prefix): t for n, t in load_file(file).items()}
    assert all(name.startswith(f"base_model.model.{prefix}layers.") for name in renamed)
    save_file(renamed, file)
    write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=tiny_mistral3)
    torch.testing.assert_close(logits(tiny_mistral3, tmp_path / "new"), wanted, rtol=0, atol=1e-5)


def test_several_adapters_become_their_weighted_sum(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = write_adapter(tiny_checkpoint, tmp_path / "first")
    second = write_adapter(tiny_checkpoint, tmp_path / "second", seed=2, use_rslora=True)
    write_vllm_adapter(
        [WeightedAdapter(first, 0.5), WeightedAdapter(second, 2.0)],
        tmp_path / "new",
        checkpoint=tiny_checkpoint,
    )
    model = PeftModel.from_pretrained(load_model(tiny_checkpoint), first, adapter_name="first")
    model.load_adapter(str(second), adapter_name="second")
    model.add_weighted_adapter(["first", "second"], [0.5, 2.0], "sum", combination_type="cat")
    model.set_adapter("sum")
    with torch.no_grad():
        wanted = model(IDS).logits
    found = logits(tiny_checkpoint, tmp_path / "new")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_an_adapter_of_some_layers_alone_reloads_on_them_alone(
    tiny_mistral3: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    kept = {n: t for n, t in load_file(file).items() if ".layers.1." in n}
    save_file(kept, file)
    write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=tiny_mistral3)
    model = PeftModel.from_pretrained(load_model(tiny_mistral3), tmp_path / "new")
    assert len(model.targeted_module_names) == 7
    assert all(".layers.1." in name for name in model.targeted_module_names)


@pytest.mark.parametrize(
    ("scale", "dtype", "kept"),
    [
        (2.0, torch.bfloat16, torch.bfloat16),
        (1.5, torch.bfloat16, torch.float32),
        (1.5, torch.float32, torch.float32),
    ],
)
def test_a_scale_that_rounding_would_blur_is_kept_in_fp32(
    scale: float, dtype: torch.dtype, kept: torch.dtype
) -> None:
    torch.manual_seed(0)
    update = LoraUpdate(torch.randn(3, 8, dtype=dtype), torch.randn(6, 3, dtype=dtype), scale)
    folded = fold_update(update, rank=5)
    assert folded["lora_B"].dtype == kept
    product = folded["lora_B"].double() @ folded["lora_A"].double()
    torch.testing.assert_close(
        product, scale * update.b.double() @ update.a.double(), rtol=1e-6, atol=0
    )
    assert not folded["lora_A"][3:].any()


@pytest.mark.parametrize(("rank", "option"), [(8, 8), (9, 16), (200, 256), (257, 320), (512, 512)])
def test_the_option_is_the_next_rank_that_vllm_knows(
    rank: int, option: int, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", r=rank)
    facts = write_vllm_adapter(
        [WeightedAdapter(adapter)], tmp_path / "new", checkpoint=tiny_checkpoint
    )
    assert facts["vllm_options"] == f"--enable-lora --max-lora-rank {option}"


@pytest.mark.parametrize(
    ("options", "named"),
    [({"use_dora": True}, "DoRA"), ({"r": 513}, "rank is 513; vLLM takes at most 512")],
)
def test_what_vllm_cannot_load_is_refused(
    options: dict[str, Any], named: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", **options)
    with pytest.raises(UserError, match=named):
        write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=tiny_checkpoint)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ("model.language_model.layers.9", "which the base does not have"),
        ("model.vision_tower.transformer.layers.1", "vLLM does not take adapters for"),
    ],
)
def test_layers_that_vllm_would_pass_over_are_refused(
    layer: str, named: str, tiny_mistral3: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    renamed = {
        n.replace("model.language_model.layers.1.self_attn", f"{layer}.attention"): t
        for n, t in load_file(file).items()
    }
    save_file(renamed, file)
    with pytest.raises(UserError, match=named):
        write_vllm_adapter([WeightedAdapter(adapter)], tmp_path / "new", checkpoint=tiny_mistral3)
