import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.train.gates.tiny_adapter import TinyRun
from tests.train.merging.adapters import merge
from train.artefacts.w4a16 import write_w4a16
from train.gates import open_model
from train.gates.logits import compare
from train.gates.open_model import open_checkpoint
from train.gates.packed_linear import PackedLinear
from train.gates.scoring import Scores
from train.merging.adapters import WeightedAdapter
from train.weight_files import list_shards, read_tensor, tensor_names


class PlainSource:
    """The weights of a checkpoint as they are."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._places = {
            name: shard for shard in list_shards(checkpoint) for name in tensor_names(shard)
        }

    @property
    def names(self) -> Sequence[str]:
        return list(self._places)

    def read(self, name: str) -> torch.Tensor:
        return read_tensor(self._places[name], name)


@pytest.fixture(scope="module")
def packed(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    merge(tiny_run.checkpoint, WeightedAdapter(tiny_run.adapter), to=folder / "merged")
    write_w4a16(PlainSource(folder / "merged"), folder / "w4a16")
    return folder / "w4a16"


def score(folder: Path, run: TinyRun, **options: dict[int | str, int]) -> Scores:
    with open_checkpoint(folder, **options) as scorer:
        return scorer.score(run.rows)


def test_a_small_model_is_unpacked_at_once(packed: Path, tiny_run: TinyRun) -> None:
    with open_checkpoint(packed) as scorer:
        assert not any(isinstance(module, PackedLinear) for module in scorer.model.modules())
        found = scorer.score(tiny_run.rows)
    comparison = compare(score(packed.parent / "merged", tiny_run), found)
    assert 1e-4 < comparison.kl_mean < 0.1


def test_a_large_model_stays_packed_and_says_the_same(
    packed: Path, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = score(packed, tiny_run)
    monkeypatch.setattr(open_model, "SMALL_BYTES", 0)
    with open_checkpoint(packed) as scorer:
        layers = [one for one in scorer.model.modules() if isinstance(one, PackedLinear)]
        assert len(layers) == 2 * 7
        found = scorer.score(tiny_run.rows)
        assert scorer.answer(tiny_run.rows[:2], max_tokens=2)
        for layer in layers:
            assert "weight" not in layer._parameters
            assert layer.weight_packed.dtype == torch.int32
    # Computed in bf16, since it counts as large.
    assert compare(wanted, found).kl_mean < 0.01


def test_layers_on_disk_are_unpacked_when_they_run(packed: Path, tiny_run: TinyRun) -> None:
    wanted = score(packed, tiny_run)
    with open_checkpoint(packed, max_memory={"cpu": 110_000}) as scorer:
        assert any(parameter.is_meta for parameter in scorer.model.parameters())
        found = scorer.score(tiny_run.rows)
    np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=1e-3, atol=1e-4)


def test_a_damaged_scale_shows(packed: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(packed, tmp_path / "damaged"))
    (file,) = damaged.glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("down_proj.weight_scale"))
    tensors[name] = tensors[name] * 8
    save_file(tensors, file, metadata={"format": "pt"})
    wanted = score(packed, tiny_run)
    assert compare(wanted, score(damaged, tiny_run)).kl_mean > 0.01
