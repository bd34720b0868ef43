import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from configs.errors import UserError
from serve.llama_scorer import TokenScores, open_gguf
from tests.conversations import chat
from tests.full_disk import limited_file_size
from tests.tiny_gguf import write_tiny_gguf
from tests.train.merging.adapters import VARIANTS, load_model, write_adapter
from train.artefacts.gguf_header import read_header
from train.artefacts.lora_gguf import make_lora_gguf
from train.gates.scoring import HeldOutRow
from train.merging.adapters import WeightedAdapter
from train.merging.merged_weights import MergedWeights

LINEAR_VARIANTS = {name: kind for name, kind in VARIANTS.items() if "use_dora" not in kind}
NUM_SCORED = 12


def held_out(vocab_size: int) -> HeldOutRow:
    ids = np.random.default_rng(5).integers(20, vocab_size, 24).astype(np.int32)
    mask = np.zeros(24, dtype=np.int8)
    mask[-NUM_SCORED:] = 1
    return HeldOutRow(conversation=chat("", "x"), ids=ids, mask=mask)


def scores(file: Path, row: HeldOutRow, *, lora: Path | None = None) -> TokenScores:
    with open_gguf(file, num_threads=1, context_length=128, lora=lora) as llama:
        return llama.score([row])


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("kind", LINEAR_VARIANTS.values(), ids=LINEAR_VARIANTS)
def test_llama_cpp_applies_it_as_if_it_were_merged(
    kind: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "fp32"
    write_fp32(tiny_checkpoint, plain)
    adapter = WeightedAdapter(write_adapter(plain, tmp_path / "adapter", **kind))
    merged = write_merged_gguf(plain, [adapter], tmp_path)
    base = write_tiny_gguf(plain, tmp_path / "base.gguf")
    make_lora_gguf([adapter], plain, tmp_path / "lora.gguf", name="tiny")
    row = held_out(392)
    expected = scores(merged, row).log_probs
    found = scores(base, row, lora=tmp_path / "lora.gguf").log_probs
    assert largest_difference(found, expected) < 1e-4
    assert largest_difference(scores(base, row).log_probs, expected) > 1e-2


def test_two_adapters_become_their_weighted_sum(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = tmp_path / "fp32"
    write_fp32(tiny_checkpoint, plain)
    adapters = [
        WeightedAdapter(write_adapter(plain, tmp_path / str(seed), seed=seed), weight)
        for seed, weight in ((1, 0.5), (2, -1.5))
    ]
    merged = write_merged_gguf(plain, adapters, tmp_path)
    base = write_tiny_gguf(plain, tmp_path / "base.gguf")
    make_lora_gguf(adapters, plain, tmp_path / "lora.gguf", name="tiny")
    row = held_out(392)
    found = scores(base, row, lora=tmp_path / "lora.gguf").log_probs
    assert largest_difference(found, scores(merged, row).log_probs) < 1e-4


def test_it_acts_on_mistral3_as_in_peft(
    mistral3_with_tokenizer: Path, mistral3_gguf: Path, tmp_path: Path
) -> None:
    kind = VARIANTS["ranks and scales by pattern"]
    adapter = write_adapter(mistral3_with_tokenizer, tmp_path / "adapter", **kind)
    file = tmp_path / "lora.gguf"
    make_lora_gguf([WeightedAdapter(adapter)], mistral3_with_tokenizer, file, name="tiny")
    row = held_out(100_000)
    model = load_model(mistral3_with_tokenizer)
    without = logits(model, row)
    model.load_adapter(str(adapter))
    expected = logits(model, row)
    found = scores(mistral3_gguf, row, lora=file).log_probs
    assert largest_difference(found, expected) < 2e-3
    assert largest_difference(without, expected) > 2e-2


def test_the_file_says_what_it_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter")
    file = tmp_path / "lora.gguf"
    make_lora_gguf([WeightedAdapter(adapter)], tiny_checkpoint, file, name="tiny")
    header = read_header(file)
    told = {name: field.value for name, field in header.fields.items()}
    assert told["general.type"] == "adapter"
    assert (told["adapter.type"], told["adapter.lora.alpha"]) == ("lora", 8)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    assert len(shapes) == 2 * 2 * 7
    assert shapes["blk.1.ffn_down.weight.lora_a"] == (4, 128)
    assert shapes["blk.1.ffn_down.weight.lora_b"] == (64, 4)
    assert {tensor.kind for tensor in header.tensors} == {gguf.GGMLQuantizationType.F32}


def test_a_dora_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter", use_dora=True)
    with pytest.raises(UserError, match="the adapter is a DoRA"):
        make_lora_gguf([WeightedAdapter(adapter)], tiny_checkpoint, tmp_path / "x", name="x")
    assert not (tmp_path / "x").exists()


def test_an_update_that_llama_cpp_does_not_know_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    change_config(checkpoint, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"updates model\.layers\.1\.\S+, to which llama\.cpp"):
        make_lora_gguf([WeightedAdapter(adapter)], checkpoint, tmp_path / "x", name="x")


def test_families_that_are_laid_out_otherwise_are_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    change_config(checkpoint, model_type="gemma3")
    with pytest.raises(UserError, match="of type gemma3 cannot be exported"):
        make_lora_gguf([WeightedAdapter(adapter)], checkpoint, tmp_path / "x", name="x")


def test_a_full_disk_is_told_and_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_checkpoint, tmp_path / "adapter")
    with limited_file_size(5000), pytest.raises(UserError, match="cannot write"):
        make_lora_gguf([WeightedAdapter(adapter)], tiny_checkpoint, tmp_path / "x", name="x")
    assert not (tmp_path / "x").exists()


def write_fp32(checkpoint: Path, folder: Path) -> None:
    """The checkpoint in fp32, so that rounding hides nothing."""
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    load_model(checkpoint).save_pretrained(folder)


def write_merged_gguf(plain: Path, adapters: list[WeightedAdapter], folder: Path) -> Path:
    """The sum of base and adapters, all in fp32."""
    weights = MergedWeights.open(plain, adapters)
    shutil.copytree(plain, folder / "merged")
    merged = {name: weights.read(name) for name in weights.names}
    save_file(merged, folder / "merged" / "model.safetensors")
    return write_tiny_gguf(folder / "merged", folder / "merged.gguf")


def change_config(checkpoint: Path, **changes: Any) -> None:  # noqa: ANN401 - JSON
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | changes))


def logits(model: torch.nn.Module, row: HeldOutRow) -> np.ndarray:
    """Log-probabilities of the row's scored tokens."""
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    with torch.no_grad():
        told = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return np.array([float(told[place - 1, row.ids[place]]) for place in row.scored])
