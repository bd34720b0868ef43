import json
import shutil
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from configs.errors import UserError
from tests.train.artefacts.sources import ShiftedTensors, linear_names, load_all
from train.artefacts.nf4 import write_nf4
from train.nf4_checkpoint import resolve_nf4
from train.plain_checkpoint import read_dequantized
from train.quantization import model_class
from train.quantized_base import load_base
from train.quantized_folder import CheckpointTensors

IDS = torch.arange(20, 60)[None]
NUM_LINEARS = 2 * 7


def shifted(checkpoint: Path, relative: float = 0.01) -> ShiftedTensors:
    names = linear_names(CheckpointTensors(checkpoint).names)
    return ShiftedTensors(checkpoint, frozenset(names), relative)


def dequantized(folder: Path, name: str) -> torch.Tensor:
    return read_dequantized(
        dict.fromkeys(load_all(folder), folder / "model-00001-of-00001.safetensors"), name
    )


def test_without_an_update_it_is_the_checkpoint_that_training_reads(
    checkpoint: Path, tmp_path: Path
) -> None:
    facts = write_nf4(CheckpointTensors(checkpoint), tmp_path / "new")
    assert facts == {"num_quantized_tensors": NUM_LINEARS}
    wanted, found = load_all(resolve_nf4(checkpoint)), load_all(tmp_path / "new")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    told = [
        json.loads((f / "config.json").read_text())
        for f in (resolve_nf4(checkpoint), tmp_path / "new")
    ]
    assert told[0] == told[1]


def test_the_sum_is_quantized_without_rounding_it_first(checkpoint: Path, tmp_path: Path) -> None:
    source = shifted(checkpoint)
    write_nf4(source, tmp_path / "new")
    found = load_all(tmp_path / "new")
    differs = 0
    for name in source.updated:
        # bitsandbytes' own on the whole fp32 tensor.
        packed, state = quantize_4bit(source.read(name), compress_statistics=True, quant_type="nf4")
        assert torch.equal(found[name], packed), name
        assert torch.equal(found[f"{name}.absmax"], state.absmax), name
        # The numbers of a model that computes in bf16.
        wanted = dequantize_4bit(packed, state).bfloat16()
        assert torch.equal(dequantized(tmp_path / "new", name), wanted), name
        rounded, _ = quantize_4bit(
            source.read(name).bfloat16(), compress_statistics=True, quant_type="nf4"
        )
        differs += not torch.equal(rounded, packed)
    assert differs == NUM_LINEARS


def test_it_loads_as_a_bf16_model_whose_answers_are_near(checkpoint: Path, tmp_path: Path) -> None:
    write_nf4(shifted(checkpoint), tmp_path / "new")
    plain = model_class(checkpoint).from_pretrained(checkpoint, dtype=torch.bfloat16)
    models: list[PreTrainedModel] = [
        model_class(checkpoint).from_pretrained(tmp_path / "new", device_map={"": "cpu"}),
        load_base(tmp_path / "new", quantization="nf4", with_images=True),
    ]
    for model in models:
        layers = [one for one in model.modules() if isinstance(one, Linear4bit)]
        assert len(layers) == NUM_LINEARS
        assert {vars(layer.weight)["quant_state"].dtype for layer in layers} == {torch.bfloat16}
        with torch.no_grad():
            found, wanted = model(IDS).logits.float(), plain(IDS).logits.float()
        cosine = torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
        assert 0.95 < cosine < 0.9999


def test_all_else_is_the_base_byte_for_byte(tiny_mistral3: Path, tmp_path: Path) -> None:
    source = shifted(tiny_mistral3)
    write_nf4(source, tmp_path / "new")
    before, after = load_all(tiny_mistral3), load_all(tmp_path / "new")
    kept = before.keys() - source.updated
    assert sum(name.startswith(("vision_tower.", "multi_modal_projector.")) for name in kept) > 20
    for name in kept:
        assert torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)), name


def test_an_update_that_bf16_swallows_is_worth_not_rounding_for(tiny_mistral3: Path) -> None:
    """How much of the update is in what rounding to 4 bits made of it: 1 is all, on the average."""
    source = shifted(tiny_mistral3, relative=0.0005)

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        return dequantize_4bit(*quantize_4bit(weight, quant_type="nf4")).double()

    arrived = {"straight": 0.0, "by way of bf16": 0.0}
    wanted = 0.0
    for name in source.updated:
        base, delta = CheckpointTensors(tiny_mistral3).read(name), source.delta(name).double()
        before = rounded(base.float())
        ways = {
            "straight": source.read(name),
            "by way of bf16": source.read(name).bfloat16().float(),
        }
        for way, weight in ways.items():
            arrived[way] += float(((rounded(weight) - before) * delta).sum())
        wanted += float(delta.square().sum())
    assert arrived["straight"] > 0.6 * wanted
    assert arrived["by way of bf16"] < 0.6 * arrived["straight"]


def test_what_cannot_be_quantized_is_refused(
    tiny_mistral3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="the other way round") as told:
        write_nf4(CheckpointTensors(tmp_path / "gpt2"), tmp_path / "new")
    assert "merge.artefacts" in str(told.value.remedy)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(UserError, match="are needed on this disk") as told:
        write_nf4(CheckpointTensors(tiny_mistral3), tmp_path / "new")
    assert "--runs" in str(told.value.remedy)
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]


def test_it_tells_how_far_it_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    source = CheckpointTensors(tiny_checkpoint)
    write_nf4(source, tmp_path / "new", on_tensor=lambda *done: told.append(done))
    assert told == [(number, len(source.names)) for number in range(1, len(source.names) + 1)]
