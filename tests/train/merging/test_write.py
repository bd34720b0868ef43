import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer, LoraModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from configs.errors import UserError
from configs.schema import BaseName, LoraConfig
from tests.full_disk import limited_file_size
from tests.tiny_mistral3 import build_tiny_mistral3, hub_name
from tests.train.merging.adapters import (
    NUM_UPDATES,
    VARIANTS,
    load_model,
    merge,
    train_a_little,
    write_adapter,
)
from train.lora import build_lora
from train.merging import write
from train.merging.adapters import WeightedAdapter
from train.merging.merged_weights import MergedWeights
from train.quantized_base import load_base
from train.weight_files import INDEX_FILE, list_shards, read_tensor, tensor_names


def read_all(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {
        n: read_tensor(shard, n) for shard in list_shards(checkpoint) for n in tensor_names(shard)
    }


def merged_by_peft(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """By the names of the files; tied heads are not in them."""
    return {hub_name(name): tensor for name, tensor in model.state_dict().items()}


def check_rounded(merged: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """The fp32 sums may differ in their last bit, and then fall on either side of a rounding."""
    for name, tensor in merged.items():
        wanted = expected[name].to(tensor.dtype)
        assert (tensor != wanted).float().mean() < 1e-3, name
        assert torch.allclose(tensor.float(), expected[name].float(), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weights_are_pefts_own_in_fp32_rounded_once(
    variant: str, checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(checkpoint, tmp_path / "adapter", **VARIANTS[variant])
    cosines = merge(checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged")
    model = PeftModel.from_pretrained(load_model(checkpoint), adapter).merge_and_unload()
    merged, before = read_all(tmp_path / "merged"), read_all(checkpoint)
    assert list(merged) == list(before)
    check_rounded(merged, merged_by_peft(model))
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, before[name])}
    assert changed == cosines.keys()
    assert len(changed) == NUM_UPDATES


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_fp32_base_is_merged_to_the_last_bits(
    variant: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    exact = tmp_path / "exact"
    load_model(tiny_checkpoint).save_pretrained(exact)
    adapter = write_adapter(exact, tmp_path / "adapter", **VARIANTS[variant])
    merge(exact, WeightedAdapter(adapter), to=tmp_path / "merged")
    model = PeftModel.from_pretrained(load_model(exact), adapter).merge_and_unload()
    expected = model.state_dict()
    for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-7)


def test_unrounded_sums_are_pefts_own(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(checkpoint, tmp_path / "adapter")
    weights = MergedWeights.open(checkpoint, [WeightedAdapter(adapter)])
    model = PeftModel.from_pretrained(load_model(checkpoint), adapter).merge_and_unload()
    expected = merged_by_peft(model)
    for name in weights.names:
        tensor = weights.read(name)
        assert tensor.dtype == (torch.float32 if name in weights.modules else torch.bfloat16)
        torch.testing.assert_close(tensor.float(), expected[name], rtol=1e-5, atol=1e-7)


def test_several_adapters_add_up_by_weight(checkpoint: Path, tmp_path: Path) -> None:
    first = write_adapter(checkpoint, tmp_path / "first", seed=1)
    second = write_adapter(checkpoint, tmp_path / "second", seed=2, r=3, use_rslora=True)
    merge(
        checkpoint,
        WeightedAdapter(first, 0.7),
        WeightedAdapter(second, -0.4),
        to=tmp_path / "merged",
    )
    model = PeftModel.from_pretrained(load_model(checkpoint), first, adapter_name="first")
    model.load_adapter(str(second), adapter_name="second")
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scaling["first"] *= 0.7
            module.scaling["second"] *= -0.4
    assert isinstance(model.base_model, LoraModel)
    model.base_model.set_adapter(["first", "second"])
    check_rounded(read_all(tmp_path / "merged"), merged_by_peft(model.merge_and_unload()))


@pytest.mark.parametrize("variant", ["plain", "dora"])
def test_the_dequantized_base_is_what_the_adapter_saw(
    variant: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "cache"))
    adapter = write_adapter(checkpoint, tmp_path / "adapter", **VARIANTS[variant])
    merge(checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged", base="nf4")
    merge(checkpoint, WeightedAdapter(adapter), to=tmp_path / "other", base="bf16")
    ids = torch.arange(20, 60)[None]
    seen = PeftModel.from_pretrained(load_base(checkpoint, quantization="nf4"), adapter).float()
    wanted = seen(ids).logits
    near = (load_model(tmp_path / "merged")(ids).logits - wanted).norm()
    far = (load_model(tmp_path / "other")(ids).logits - wanted).norm()
    assert near < 0.2 * far


def test_layers_without_an_update_are_dequantized_too(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "cache"))
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", target_modules=["q_proj"])
    cosines = merge(tiny_checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged", base="nf4")
    assert len(cosines) == 2
    merged, before = read_all(tmp_path / "merged"), read_all(tiny_checkpoint)
    name = "model.layers.0.mlp.up_proj.weight"
    layer = load_base(tiny_checkpoint, quantization="nf4").model.layers[0].mlp.up_proj
    identity = torch.eye(before[name].shape[1], dtype=torch.bfloat16)
    assert torch.equal(merged[name], layer(identity).T)
    assert torch.equal(merged["model.norm.weight"], before["model.norm.weight"])


def test_merged_model_answers_as_base_with_adapter(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(checkpoint, tmp_path / "adapter")
    merge(checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged")
    ids = torch.arange(20, 60)[None]
    base = load_model(checkpoint)
    plain = base(ids).logits.detach()
    wanted = PeftModel.from_pretrained(base, adapter)(ids).logits
    error = (load_model(tmp_path / "merged")(ids).logits - wanted).norm()
    assert error < 0.05 * (wanted - plain).norm()


def test_whatever_is_not_updated_is_the_bases_own_byte_for_byte(
    tiny_mistral3: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    cosines = merge(tiny_mistral3, WeightedAdapter(adapter), to=tmp_path / "merged")
    for file in tiny_mistral3.iterdir():
        written = (tmp_path / "merged" / file.name).read_bytes()
        if file.suffix != ".safetensors":
            assert written == file.read_bytes(), file.name
        else:
            header = 8 + int.from_bytes(written[:8], "little")
            assert written[:header] == file.read_bytes()[:header]
    merged, before = read_all(tmp_path / "merged"), read_all(tiny_mistral3)
    for name in before.keys() - cosines.keys():
        assert torch.equal(merged[name].view(torch.uint8), before[name].view(torch.uint8))
    assert sum("vision_tower" in name for name in before.keys() - cosines.keys()) > 10
    assert all("language_model" in name for name in cosines)


@pytest.mark.parametrize("base", ["bf16", "nf4"])
def test_tensors_in_many_parts_are_those_in_one(
    base: BaseName, tiny_mistral3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part is a tile of 64 rows here, of which the layers have two, and 5,000 bytes of others."""
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    whole = merge(tiny_mistral3, WeightedAdapter(adapter), to=tmp_path / "whole", base=base)
    monkeypatch.setattr(write, "PART_BYTES", 5000)
    parts = merge(tiny_mistral3, WeightedAdapter(adapter), to=tmp_path / "parts", base=base)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert parts == whole


def test_every_tensor_is_told_once_when_it_is_whole(
    tiny_mistral3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "PART_BYTES", 5000)
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    weights = MergedWeights.open(tiny_mistral3, [WeightedAdapter(adapter)])
    told: list[tuple[int, int]] = []
    (tmp_path / "merged").mkdir()
    write.write_merged(
        weights, tmp_path / "merged", num_threads=2, on_tensor=lambda *one: told.append(one)
    )
    total = len(weights.names)
    assert told == [(number, total) for number in range(1, total + 1)]


def test_the_index_is_carried_along(tiny_mistral3: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_mistral3, tmp_path / "adapter")
    merge(tiny_mistral3, WeightedAdapter(adapter), to=tmp_path / "merged")
    names = {file.name for file in tiny_mistral3.iterdir()}
    assert INDEX_FILE in names
    assert {file.name for file in (tmp_path / "merged").iterdir()} == names


def test_an_update_that_finds_no_tensor_stops_the_merge(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    file = adapter / "adapter_model.safetensors"
    renamed = {n.replace("layers.1.", "layers.9."): t for n, t in load_file(file).items()}
    save_file(renamed, file)
    with pytest.raises(UserError, match=r"updates model\.layers\.9\..* which the base does not"):
        merge(tiny_checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_a_base_of_another_width_is_refused(
    adapter: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file(
        {n: t[:, 2:].contiguous() if "lora_A" in n else t for n, t in load_file(file).items()}, file
    )
    with pytest.raises(UserError, match=r"update of model\.layers\.\d\..* is \d+ × \d+"):
        merge(tiny_checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged")


def test_a_quantized_base_is_refused(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((base / "config.json").read_text())
    told = {"quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(config | told))
    with pytest.raises(UserError, match="base's weights are quantized"):
        merge(base, WeightedAdapter(adapter), to=tmp_path / "merged")


def test_a_disk_that_fills_up_leaves_nothing(
    tiny_checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    with limited_file_size(50_000), pytest.raises(UserError, match="cannot write"):
        merge(tiny_checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """260 MB, in tensors of 10 MB and less."""
    folder = tmp_path_factory.mktemp("large")
    build_tiny_mistral3(folder / "base", hidden=1024, intermediate=5120, num_layers=8, num_shards=5)
    model = load_model(folder / "base", torch.bfloat16)
    write_large_adapter(model, folder / "adapter")
    return folder


def write_large_adapter(model: PreTrainedModel, folder: Path) -> None:
    lora = build_lora(LoraConfig(rank=4, alpha=8), model)
    train_a_little(get_peft_model(model, lora)).save_pretrained(str(folder))


def run_merge(folder: Path, *, kill_after: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.train.merging.merge_process"]
    return subprocess.run(
        [*command, str(folder), str(kill_after)], capture_output=True, text=True, check=False
    )


def digests(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def test_memory_does_not_grow_with_the_model(large: Path) -> None:
    """The base has 260 MB, its files 50 MB each; what is held are tiles of rows."""
    assert sum(shard.stat().st_size for shard in list_shards(large / "base")) > 250e6
    finished = run_merge(large)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) * 1024 < 60e6


@pytest.mark.parametrize("kill_after", [1, 40, 97])
def test_a_kill_leaves_nothing_and_the_next_run_a_whole_checkpoint(
    kill_after: int, large: Path, tmp_path: Path
) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).symlink_to(large / name)
    assert run_merge(tmp_path, kill_after=kill_after).returncode == -signal.SIGKILL
    assert not (tmp_path / "merged").exists()
    if kill_after == 40:
        if not (large / "merged").exists():
            run_merge(large)
        assert run_merge(tmp_path).returncode == 0
        assert digests(tmp_path / "merged") == digests(large / "merged")
        assert {path.name for path in tmp_path.iterdir()} == {"base", "adapter", "merged"}


def test_num_threads_is_given_back(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        merge(tiny_checkpoint, WeightedAdapter(adapter), to=tmp_path / "merged")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
