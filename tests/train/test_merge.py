import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from configs.errors import UserError
from configs.schema import LoraConfig
from train.merge import LoraPair, merge_adapter, merge_tensor, read_adapter
from train.quantized_base import build_lora


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """An adapter with updates of a size that training gives."""
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    lora = build_lora(LoraConfig(rank=4, alpha=8), model)
    torch.manual_seed(1)
    peft_model = get_peft_model(model, lora)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    peft_model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_merged_weights_are_pefts_own_in_fp32_rounded_once(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
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


def test_merged_model_answers_as_base_with_adapter(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    merge_adapter(tiny_checkpoint, adapter, tmp_path / "merged")
    ids = torch.arange(5, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    plain = base(ids).logits.detach()
    wanted = PeftModel.from_pretrained(base, adapter)(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    error = (merged(ids).logits - wanted).norm()
    assert error < 0.05 * (wanted - plain).norm()


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


def test_a_kind_of_lora_that_would_be_merged_wrongly_is_refused(adapter: Path) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(UserError, match="use_dora"):
        read_adapter(adapter)


def test_rank_stabilised_scale_divides_by_the_root_of_the_rank(adapter: Path) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    assert read_adapter(adapter).scale == 2.0
    file.write_text(json.dumps(config | {"use_rslora": True}))
    assert read_adapter(adapter).scale == 4.0


def test_the_cosine_tells_an_update_that_rounding_swallows() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64).mul(0.02).to(torch.bfloat16)

    def cosine(scale: float) -> float:
        pair = LoraPair(torch.randn(4, 64), torch.randn(64, 4))
        return merge_tensor(weight, pair, scale * 0.02 / 2)[1]

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
