import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from configs.errors import UserError
from tests.tiny_mistral3 import build_tiny_mistral3
from train import weight_files
from train.nf4_checkpoint import (
    PIECE_ELEMENTS,
    names_in_memory,
    plan_quantization,
    quantize_weight,
    resolve_nf4,
)
from train.quantization import model_class, nf4_recipe
from train.weight_files import INDEX_FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(tmp_path_factory.mktemp("mistral3") / "tiny")


def quantize_while_loading(checkpoint: Path) -> PreTrainedModel:
    model: PreTrainedModel = model_class(checkpoint).from_pretrained(
        checkpoint,
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        quantization_config=nf4_recipe(),
    )
    return model


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def assert_same_tensors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_every_tensor_is_the_one_that_transformers_saves_after_quantizing(
    mistral3: Path, tmp_path: Path
) -> None:
    quantize_while_loading(mistral3).save_pretrained(tmp_path / "wanted")
    found, wanted = load_all(resolve_nf4(mistral3)), load_all(tmp_path / "wanted")
    assert_same_tensors(found, wanted)
    quantized = {name.split(".weight.")[0] for name in found if ".quant_state." in name}
    assert len(quantized) == 2 * 7
    assert all(name.startswith("language_model.model.layers.") for name in quantized)
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert found[name].dtype == torch.uint8
    assert found[name].numel() == 64 * 128 / 2
    assert found[f"{name}.absmax"].dtype == torch.uint8
    assert found[f"{name}.nested_absmax"].dtype == torch.float32
    assert f"{name}.quant_map" in found


def test_the_loaded_model_is_the_one_that_is_quantized_while_loading(mistral3: Path) -> None:
    folder = resolve_nf4(mistral3)
    loaded = model_class(folder).from_pretrained(folder, device_map={"": "cpu"})
    wanted = quantize_while_loading(mistral3)
    assert_same_tensors(loaded.state_dict(), wanted.state_dict())
    ids = torch.arange(3, 40)[None]
    assert torch.equal(loaded(ids).logits, wanted(ids).logits)


def test_models_with_one_name_for_all_and_a_tied_head_come_out_the_same(
    tiny_checkpoint: Path,
) -> None:
    folder = resolve_nf4(tiny_checkpoint)
    loaded = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"})
    assert_same_tensors(loaded.state_dict(), quantize_while_loading(tiny_checkpoint).state_dict())
    assert (folder / "chat_template.jinja").is_file()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_number_formats_become_bf16_first(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = build_tiny_mistral3(tmp_path / "tiny", dtype=dtype)
    quantize_while_loading(checkpoint).save_pretrained(tmp_path / "wanted")
    found = load_all(resolve_nf4(checkpoint))
    assert_same_tensors(found, load_all(tmp_path / "wanted"))
    assert found["language_model.lm_head.weight"].dtype == torch.bfloat16


def test_a_weight_in_several_pieces_is_quantized_as_a_whole_one() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1025, 2049 * 2 // 3).mul(0.02).to(torch.bfloat16)
    assert PIECE_ELEMENTS < weight.numel() < 2 * PIECE_ELEMENTS
    packed, state = quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    wanted = {f"weight.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    assert_same_tensors(quantize_weight(weight, "weight"), wanted | {"weight": packed})


def test_it_is_made_once(mistral3: Path, own_cache: Path) -> None:
    folder = resolve_nf4(mistral3)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert resolve_nf4(mistral3) == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert folder.parent == own_cache / "nf4"
    assert resolve_nf4(folder) == folder


@pytest.mark.parametrize("file", ["model-00001-of-00002.safetensors", "config.json"])
def test_changed_files_make_another_one(file: str, mistral3: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(mistral3, tmp_path / "copy"))
    before = resolve_nf4(checkpoint)
    if file == "config.json":
        changed = json.loads((checkpoint / file).read_text()) | {"image_token_index": 12}
        (checkpoint / file).write_text(json.dumps(changed))
    else:
        stat = (checkpoint / file).stat()
        os.utime(checkpoint / file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert resolve_nf4(checkpoint) != before


def test_files_are_of_bounded_size_and_listed(
    mistral3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "SHARD_BYTES", 50_000)
    folder = resolve_nf4(mistral3)
    index = json.loads((folder / INDEX_FILE).read_text())
    files = {file.name: load_file(file) for file in folder.glob("*.safetensors")}
    assert len(files) > 3
    assert set(index["weight_map"].values()) == files.keys()
    for name, tensors in files.items():
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 50_000
        assert {index["weight_map"][tensor] for tensor in tensors} == {name}
    loaded = model_class(folder).from_pretrained(folder, device_map={"": "cpu"})
    wanted = quantize_while_loading(mistral3)
    assert_same_tensors(loaded.state_dict(), wanted.state_dict())


def quantization(**told: object) -> dict[str, object]:
    return {"quant_method": "bitsandbytes", "load_in_4bit": True, **told}


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        (quantization(load_in_4bit=False, load_in_8bit=True), "bitsandbytes int8"),
        (quantization(bnb_4bit_quant_type="fp4"), "bitsandbytes fp4"),
    ],
)
def test_other_quantizations_are_refused(
    told: dict[str, object], name: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": told}))
    with pytest.raises(UserError, match=f"quantized with {name}"):
        resolve_nf4(checkpoint)


def test_a_ready_nf4_checkpoint_is_taken_as_it_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((checkpoint / "config.json").read_text())
    # Without double quantization: larger, and as good.
    told = quantization(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=False)
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": told}))
    assert resolve_nf4(checkpoint) == checkpoint


def test_a_missing_tensor_or_file_is_told(mistral3: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(mistral3, tmp_path / "copy"))
    file = checkpoint / "model-00002-of-00002.safetensors"
    tensors = load_file(file)
    del tensors["language_model.model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"1 layers, model\.language_model\.layers\.1\.mlp\.up_pr"):
        resolve_nf4(checkpoint)
    file.unlink()
    with pytest.raises(UserError, match=r"has no model-00002-of-00002\.safetensors"):
        resolve_nf4(checkpoint)


def test_layers_whose_weights_lie_the_other_way_round_are_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="the other way round"):
        resolve_nf4(tmp_path / "gpt2")


def test_weights_that_are_fused_while_loading_are_refused(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path / "mixtral")
    with pytest.raises(UserError, match="rearranged while loading"):
        resolve_nf4(tmp_path / "mixtral")


def test_names_in_files_lead_to_modules(mistral3: Path) -> None:
    from train.nf4_checkpoint import build_skeleton

    name = "language_model.model.layers.1.self_attn.q_proj.weight"
    found = names_in_memory(build_skeleton(mistral3), [name, "language_model.lm_head.weight"])
    assert found[name] == "model.language_model.layers.1.self_attn.q_proj.weight"
    assert found["language_model.lm_head.weight"] == "lm_head.weight"
    assert name in plan_quantization(mistral3).linears


def test_missing_disk_space_is_told_before_anything_is_written(
    mistral3: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(mistral3)
    folder = resolve_nf4(mistral3)
    written = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    shutil.rmtree(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=written))
    with pytest.raises(UserError, match="are needed on this disk") as told:
        resolve_nf4(mistral3)
    assert "TUNERY_CACHE" in str(told.value.remedy)
    assert list((own_cache / "nf4").iterdir()) == []


# Stops in the middle: after the first file, before the second.
STOPS_HALFWAY = """
import sys, time
from pathlib import Path
from train import weight_files
from train.nf4_checkpoint import resolve_nf4

write = weight_files.ShardWriter._write

def write_and_wait(self):
    write(self)
    print("written", flush=True)
    time.sleep(60)

weight_files.SHARD_BYTES = 50_000
weight_files.ShardWriter._write = write_and_wait
resolve_nf4(Path(sys.argv[1]))
"""


def test_a_killed_quantization_leaves_nothing_that_is_taken_for_whole(
    mistral3: Path, own_cache: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS_HALFWAY, str(mistral3)],
        cwd=ROOT,
        env=os.environ | {"TUNERY_CACHE": str(own_cache)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "written"
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = [folder.name for folder in (own_cache / "nf4").iterdir()]
    assert len(left) == 1
    assert left[0].endswith(".partial")
    folder = resolve_nf4(mistral3)
    assert [one.name for one in (own_cache / "nf4").iterdir()] == [folder.name]


# Quantizes and prints by how many bytes memory rose: heap and mapped files together.
MEASURES = """
import sys, threading, time
from pathlib import Path
from train import weight_files
from train.nf4_checkpoint import resolve_nf4

weight_files.SHARD_BYTES = 2**22

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before, peak, done = resident(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
resolve_nf4(Path(sys.argv[1]))
done = True
watcher.join()
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path, own_cache: Path) -> None:
    risen = {}
    for num_layers in (2, 22):
        checkpoint = build_tiny_mistral3(
            tmp_path / str(num_layers), hidden=512, intermediate=2048, num_layers=num_layers
        )
        result = subprocess.run(
            [sys.executable, "-c", MEASURES, str(checkpoint)],
            cwd=ROOT,
            env=os.environ | {"TUNERY_CACHE": str(own_cache), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        risen[num_layers] = int(result.stdout)
    # 20 layers more are 150 MiB more.
    assert risen[22] < risen[2] + 60 * 2**20


def test_it_is_told_how_far_it_is(mistral3: Path) -> None:
    told: list[tuple[int, int]] = []
    resolve_nf4(mistral3, on_tensor=lambda done, total: told.append((done, total)))
    assert told == [(number, 54) for number in range(1, 55)]
    resolve_nf4(mistral3, on_tensor=lambda *_: pytest.fail("it is there already"))
