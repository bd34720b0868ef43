import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CompressedTensorsConfig, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from configs.errors import UserError
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.artefacts.sources import ShiftedTensors, build_llama, linear_names, load_all
from train import weight_files
from train.artefacts import w4a16
from train.artefacts.w4a16 import SCHEME, build_scheme, pack_weight, write_w4a16
from train.quantization import UNQUANTIZED_PARTS, model_class
from train.quantized_folder import CheckpointTensors
from train.weight_files import INDEX_FILE

IDS = torch.arange(20, 60)[None]
NUM_LINEARS = 2 * 7


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mistral3"
    return build_tiny_mistral3(folder, hidden=128, intermediate=256, head_dim=32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(params=["llama", "llama of width 64", "mistral3"])
def checkpoint(
    request: pytest.FixtureRequest, llama: Path, tiny_checkpoint: Path, mistral3: Path
) -> Path:
    return {"llama": llama, "llama of width 64": tiny_checkpoint, "mistral3": mistral3}[
        request.param
    ]


def load_dequantized(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = model_class(folder).from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    return model


def dequantize(tensors: dict[str, torch.Tensor], scheme: QuantizationScheme) -> torch.Tensor:
    weight: torch.Tensor = PackedQuantizationCompressor.decompress(tensors, scheme)["weight"]
    return weight


def test_rounding_alone_is_what_llmcompressor_writes(checkpoint: Path, tmp_path: Path) -> None:
    llmcompressor = pytest.importorskip("llmcompressor")
    facts = write_w4a16(CheckpointTensors(checkpoint), tmp_path / "found", search=False)
    config = QuantizationConfig(
        config_groups={SCHEME: build_scheme(facts["group_size"])},
        ignore=[f"re:.*{part}.*" for part in (*UNQUANTIZED_PARTS, "embed_tokens")],
    )
    llmcompressor.model_free_ptq(checkpoint, tmp_path / "wanted", config=config, device="cpu")
    found, wanted = load_all(tmp_path / "found"), load_all(tmp_path / "wanted")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    assert sum(name.endswith(".weight_packed") for name in found) == NUM_LINEARS
    told = [
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("found", "wanted")
    ]
    # It cannot tell an embedding from a linear layer, and has to be told to leave it out.
    told[1]["quantization_config"]["ignore"].remove("re:.*embed_tokens.*")
    assert told[0] == told[1]


def test_the_preset_itself_is_written(llama: Path, tmp_path: Path) -> None:
    llmcompressor = pytest.importorskip("llmcompressor")
    ignore = [f"re:.*{part}.*" for part in (*UNQUANTIZED_PARTS, "embed_tokens")]
    llmcompressor.model_free_ptq(
        llama, tmp_path / "wanted", scheme="W4A16", ignore=ignore, device="cpu"
    )
    assert (
        write_w4a16(CheckpointTensors(llama), tmp_path / "found", search=False)["group_size"] == 128
    )
    config, wanted = (
        json.loads((tmp_path / name / "config.json").read_text())["quantization_config"]
        for name in ("found", "wanted")
    )
    assert config["config_groups"] == wanted["config_groups"]


def test_transformers_loads_every_weight_within_about_half_a_step(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_w4a16(CheckpointTensors(checkpoint), tmp_path / "new", search=False)
    written = load_all(tmp_path / "new")
    base = model_class(checkpoint).from_pretrained(checkpoint, dtype=torch.float32)
    loaded = load_dequantized(tmp_path / "new").state_dict()
    scales = {
        name.removesuffix("_scale").removeprefix("language_model.").removeprefix("model."): scale
        for name, scale in written.items()
        if name.endswith("weight_scale")
    }
    assert len(scales) == NUM_LINEARS
    for name, weight in base.state_dict().items():
        short = name.removeprefix("model.").removeprefix("language_model.")
        if short not in scales:
            assert torch.equal(loaded[name].float(), weight), name
            continue
        step = scales[short].float().repeat_interleave(weight.shape[1] // scales[short].shape[1], 1)
        error = (loaded[name].float() - weight).abs()
        assert (error <= 0.55 * step + 2**-8 * weight.abs()).all(), name
        assert error.max() > 0.4 * step.min()


def test_answers_are_near_those_of_the_unquantized_model(checkpoint: Path, tmp_path: Path) -> None:
    write_w4a16(CheckpointTensors(checkpoint), tmp_path / "new")
    with torch.no_grad():
        wanted = (
            model_class(checkpoint).from_pretrained(checkpoint, dtype=torch.bfloat16)(IDS).logits
        )
        # As the gates load it too: packed, until the first answer is asked for.
        packed = model_class(checkpoint).from_pretrained(tmp_path / "new", dtype=torch.bfloat16)
        assert any(name.endswith("up_proj.weight_packed") for name in packed.state_dict())
        found = packed(IDS).logits
        dequantized = load_dequantized(tmp_path / "new")(IDS).logits
    assert torch.equal(found, dequantized)
    cosine = torch.cosine_similarity(found.float().flatten(), wanted.float().flatten(), dim=0)
    assert 0.95 < cosine < 0.9999


def test_all_else_is_the_base_byte_for_byte(mistral3: Path, tmp_path: Path) -> None:
    updated = frozenset(linear_names(CheckpointTensors(mistral3).names))
    assert len(updated) == NUM_LINEARS
    write_w4a16(ShiftedTensors(mistral3, updated, 0.01), tmp_path / "new")
    before, after = load_all(mistral3), load_all(tmp_path / "new")
    kept = before.keys() - updated
    assert kept == {name for name in after if not name.startswith(tuple(n[:-6] for n in updated))}
    assert sum(name.startswith(("vision_tower.", "multi_modal_projector.")) for name in kept) > 20
    for name in kept:
        assert after[name].dtype == before[name].dtype
        assert torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)), name
    index = json.loads((tmp_path / "new" / INDEX_FILE).read_text())
    assert index["weight_map"].keys() == after.keys()
    assert (tmp_path / "new" / "preprocessor_config.json").is_file()


def test_an_update_that_bf16_swallows_arrives(llama: Path, tmp_path: Path) -> None:
    """How much of the update is in what rounding to 4 bits made of it: 1 is all, on the average."""
    updated = frozenset(linear_names(CheckpointTensors(llama).names))
    source = ShiftedTensors(llama, updated, relative=0.0005)
    scheme = build_scheme(128)

    write_w4a16(source, tmp_path / "new")
    written = load_all(tmp_path / "new")

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        return dequantize(pack_weight(weight, scheme, search=True).tensors, scheme).double()

    arrived = {"straight": 0.0, "by way of bf16": 0.0}
    wanted = 0.0
    for name in updated:
        layer = name.removesuffix("weight")
        parts = {p: written[layer + p] for p in ("weight_packed", "weight_scale", "weight_shape")}
        ways = {
            "straight": dequantize(parts, scheme).double(),
            "by way of bf16": rounded(source.read(name).bfloat16()),
        }
        before = rounded(CheckpointTensors(llama).read(name))
        delta = source.delta(name).double()
        for way, weight in ways.items():
            arrived[way] += float(((weight - before) * delta).sum())
        wanted += float(delta.square().sum())
    assert arrived["straight"] > 0.7 * wanted
    assert arrived["by way of bf16"] < 0.5 * arrived["straight"]


def test_searched_scales_leave_less_error(llama: Path, tmp_path: Path) -> None:
    source = CheckpointTensors(llama)
    plain = write_w4a16(source, tmp_path / "plain", search=False)
    found = write_w4a16(source, tmp_path / "found")
    assert found["relative_weight_error"] < 0.95 * plain["relative_weight_error"]
    loaded = load_dequantized(tmp_path / "found").state_dict()
    error = norm = 0.0
    for name in linear_names(source.names):
        weight = source.read(name).float()
        error += float((loaded[name].float() - weight).square().sum())
        norm += float(weight.square().sum())
    # What is told of the error is what a loaded model has of it.
    assert found["relative_weight_error"] == pytest.approx((error / norm) ** 0.5, rel=0.01)
    assert found["worst_relative_weight_error"] > found["relative_weight_error"]
    assert found["worst_tensor"] in source.names


def test_searched_scales_are_as_good_as_llmcompressors() -> None:
    observers = pytest.importorskip("llmcompressor.observers")
    torch.manual_seed(0)
    weight = torch.randn(64, 512) * torch.rand(64, 1)
    args = build_scheme(128).weights
    assert args is not None
    ours = pack_weight(weight, build_scheme(128), search=True)
    observer = observers.Observer.load_from_registry(
        "memoryless_mse", base_name="weight", args=args.model_copy(deep=True)
    )
    observer(weight)
    scale = observer.get_qparams()["scale"].bfloat16().float()
    rounded = fake_quantize(weight, scale, None, args)
    assert ours.squared_error < 1.02 * float((rounded - weight).square().sum())


def test_a_weight_in_pieces_is_quantized_as_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight = torch.randn(70, 256)
    whole = pack_weight(weight, build_scheme(128), search=True)
    monkeypatch.setattr(w4a16, "PIECE_ELEMENTS", 1000)
    pieces = pack_weight(weight, build_scheme(128), search=True)
    assert pieces.tensors.keys() == whole.tensors.keys()
    for part, tensor in whole.tensors.items():
        assert torch.equal(pieces.tensors[part], tensor)
    assert pieces.squared_error == pytest.approx(whole.squared_error)


def test_a_weight_of_zeros_stays_one() -> None:
    scheme = build_scheme(64)
    packed = pack_weight(torch.zeros(4, 128), scheme, search=True)
    assert not dequantize(packed.tensors, scheme).any()
    assert packed.relative_error == 0


@pytest.mark.parametrize(("hidden", "size"), [(128, 128), (64, 64), (96, 32)])
def test_the_group_size_divides_every_width(hidden: int, size: int, tmp_path: Path) -> None:
    checkpoint = build_llama(tmp_path / "llama", hidden=hidden)
    facts = write_w4a16(CheckpointTensors(checkpoint), tmp_path / "new")
    assert facts["group_size"] == size
    scale = load_all(tmp_path / "new")["model.layers.0.mlp.down_proj.weight_scale"]
    assert scale.shape == (hidden, 256 // size)


def test_a_width_that_no_group_size_divides_is_told(tmp_path: Path) -> None:
    checkpoint = build_llama(tmp_path / "llama", intermediate=200)
    with pytest.raises(UserError, match=r"multiple of 32; that of .*0\.mlp\.down_proj.* is 200"):
        write_w4a16(CheckpointTensors(checkpoint), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_that_lie_the_other_way_round_are_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="the other way round") as told:
        write_w4a16(CheckpointTensors(tmp_path / "gpt2"), tmp_path / "new")
    assert "merge.artefacts" in str(told.value.remedy)


def test_what_is_not_quantized_comes_out_in_bf16(tmp_path: Path) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "tiny", dtype=torch.float32)
    write_w4a16(CheckpointTensors(checkpoint), tmp_path / "new")
    for name, tensor in load_all(tmp_path / "new").items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.bfloat16, name
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "bfloat16"


def test_it_tells_how_far_it_is(llama: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_w4a16(
        CheckpointTensors(llama), tmp_path / "new", on_tensor=lambda *done: told.append(done)
    )
    num_tensors = len(CheckpointTensors(llama).names)
    assert told == [(number, num_tensors) for number in range(1, num_tensors + 1)]


@dataclass(frozen=True)
class BreaksOff(CheckpointTensors):
    """A source that fails in its middle."""

    checkpoint: Path

    def read(self, name: str) -> torch.Tensor:
        if "layers.1" in name:
            raise OSError("gone")
        return super().read(name)


def test_a_failure_leaves_nothing(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="gone"):
        write_w4a16(BreaksOff(llama), tmp_path / "new")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(UserError, match="are needed on this disk"):
        write_w4a16(CheckpointTensors(llama), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_asked_for_about_what_is_written(
    mistral3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(
        "train.quantized_folder.check_free_space",
        lambda folder, **asked: needed.append(asked["needed"]),
    )
    write_w4a16(CheckpointTensors(mistral3), tmp_path / "new")
    written = sum(file.stat().st_size for file in (tmp_path / "new").glob("*.safetensors"))
    assert written <= needed[0] < written + 2**12 * 100


class AliveTensors(TorchDispatchMode):
    """Keeps the most bytes that tensors of 16 KiB and more held at any operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, weakref.ref[torch.Tensor]] = {}
        self.most_bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in (*args, *(out if isinstance(out, tuple | list) else [out])):
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta and tensor.nbytes >= 2**14:
                self._alive[id(tensor)] = weakref.ref(tensor)
        tensors = {key: ref() for key, ref in self._alive.items()}
        self._alive = {key: self._alive[key] for key, found in tensors.items() if found is not None}
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in tensors.values()
            if tensor is not None
        }
        self.most_bytes = max(self.most_bytes, sum(storages.values()))
        return out


class LeanSums(CheckpointTensors):
    """A source that needs no more than the file's tensor and the sum."""

    def read(self, name: str) -> torch.Tensor:
        tensor = super().read(name)
        return tensor.float().mul_(1.001) if "_proj.weight" in name else tensor


@pytest.mark.parametrize("num_layers", [1, 3])
def test_memory_is_a_tensor_and_its_pieces_whatever_the_number_of_layers(
    num_layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = build_tiny_mistral3(
        tmp_path / "tiny", hidden=256, intermediate=4096, num_layers=num_layers
    )
    shard_bytes, piece_elements = 2**19, 2**15
    monkeypatch.setattr(weight_files, "SHARD_BYTES", shard_bytes)
    monkeypatch.setattr(w4a16, "PIECE_ELEMENTS", piece_elements)
    with AliveTensors() as alive:
        write_w4a16(LeanSums(checkpoint), tmp_path / "new")
    largest = 4 * 256 * 4096
    # The bf16 tensor and its sum; then the sum, what is packed of it, and a piece's temporaries.
    assert largest < alive.most_bytes < 1.6 * largest + shard_bytes + 12 * 4 * piece_elements
