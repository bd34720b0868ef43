import json
import shutil
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from configs.errors import UserError
from configs.schema import LoraConfig, TrainConfig
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.merging.adapters import merge
from train.lora import build_adapter, save_adapter
from train.merging.adapters import WeightedAdapter
from train.nf4_checkpoint import resolve_nf4
from train.plain_checkpoint import resolve_plain
from train.quantized_base import load_base
from train.weight_files import INDEX_FILE

TEXT = torch.arange(20, 84)[None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(tmp_path_factory.mktemp("mistral3") / "tiny")


def test_a_plain_checkpoint_is_its_own(mistral3: Path) -> None:
    assert resolve_plain(mistral3) == mistral3


def scatter(checkpoint: Path, folder: Path) -> Path:
    """The same checkpoint with what belongs to a weight in several files."""
    shutil.copytree(checkpoint, folder)
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
        file.unlink()
    names = sorted(tensors)
    weight_map = {name: f"{number % 3}.safetensors" for number, name in enumerate(names)}
    for file_name in set(weight_map.values()):
        own = {name: tensors[name] for name in names if weight_map[name] == file_name}
        save_file(own, folder / file_name, metadata={"format": "pt"})
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("is_scattered", [False, True])
def test_the_weights_are_those_that_the_4_bit_layers_compute_with(
    is_scattered: bool, mistral3: Path, tmp_path: Path
) -> None:
    ready = resolve_nf4(mistral3)
    if is_scattered:
        ready = scatter(ready, tmp_path / "scattered")
    plain = resolve_plain(ready)
    assert resolve_plain(ready) == plain
    quantized = load_base(ready, quantization="nf4", with_images=True)
    model = AutoModelForImageTextToText.from_pretrained(plain, dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    found = dict(model.named_parameters())
    num_quantized = 0
    for name, module in quantized.named_modules():
        if isinstance(module, Linear4bit):
            assert isinstance(module.weight, Params4bit)
            wanted = dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert torch.equal(found.pop(f"{name}.weight"), wanted), name
            num_quantized += 1
    assert num_quantized == 2 * 7
    others = dict(quantized.named_parameters())
    for name, parameter in found.items():
        assert torch.equal(parameter, others[name]), name


def test_nothing_in_it_says_that_it_is_quantized(mistral3: Path) -> None:
    plain = resolve_plain(resolve_nf4(mistral3))
    assert "quantization_config" not in (plain / "config.json").read_text()
    names = {name for file in plain.glob("*.safetensors") for name in load_file(file)}
    index = json.loads((plain / INDEX_FILE).read_text())
    assert index["weight_map"].keys() == names
    before = {name for file in mistral3.glob("*.safetensors") for name in load_file(file)}
    assert names == before


def test_an_adapter_of_a_ready_4_bit_model_is_merged(mistral3: Path, tmp_path: Path) -> None:
    ready = resolve_nf4(mistral3)
    config = TrainConfig(num_steps=1, lora=LoraConfig(rank=4, alpha=8, dtype="float32"))
    model = build_adapter(load_base(ready, quantization="nf4"), config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    save_adapter(model, tmp_path / "adapter", base_name="tiny")
    merge(resolve_plain(ready), WeightedAdapter(tmp_path / "adapter"), to=tmp_path / "merged")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    with torch.no_grad():
        wanted = model(TEXT).logits.float()
        with model.disable_adapter():
            plain = model(TEXT).logits.float()
        error = (merged(TEXT).logits.float() - wanted).norm()
    assert error < 0.05 * (wanted - plain).norm()


def test_other_quantizations_are_refused(mistral3: Path, tmp_path: Path) -> None:
    told = {"quantization_config": {"quant_method": "awq"}}
    config = json.loads((mistral3 / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | told))
    with pytest.raises(UserError, match="quantized with awq"):
        resolve_plain(tmp_path)
