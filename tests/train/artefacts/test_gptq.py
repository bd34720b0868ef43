import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor

from configs.errors import UserError
from data.tokens.load_tokenizer import load_tokenizer
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.artefacts.sources import linear_names, load_all
from tests.train.no_network import REACHED
from train.artefacts import gptq
from train.artefacts.gptq import build_batches, check_gptq, write_w4a16_gptq
from train.artefacts.w4a16 import build_scheme, write_w4a16
from train.quantization import model_class
from train.quantized_folder import CheckpointTensors
from train.rows import Rows

ROOT = Path(__file__).parents[3]
NUM_LINEARS = 2 * 7
SENTENCES = [
    "Which colour is the sky? The sky is blue.",
    "Name the licence and its category: 12, 345 and the grass.",
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "Which chapter does this diagnosis belong to? The number is 12.",
]


def build_rows(rows: list[list[int]], images: dict[int, str] | None = None) -> Rows:
    return Rows(
        file=Path("train.parquet"),
        input_ids=np.concatenate([np.array(row, np.int32) for row in rows]),
        assistant_mask=np.ones(sum(map(len, rows)), np.int8),
        offsets=np.cumsum([0, *map(len, rows)]),
        images=images or {},
    )


@pytest.fixture
def rows(tiny_checkpoint: Path) -> Rows:
    tokenizer = load_tokenizer(tiny_checkpoint)
    return build_rows([tokenizer(f"{text} {text}").input_ids for text in SENTENCES * 4])


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mistral3"
    return build_tiny_mistral3(folder, with_tokenizer=True)


@torch.no_grad()
def distance(checkpoint: Path, folder: Path, rows: Rows) -> float:
    """How far the answers to the rows are from the unquantized model's: mean KL, in nats."""
    plain = model_class(checkpoint).from_pretrained(checkpoint, dtype=torch.bfloat16)
    quantized = model_class(checkpoint).from_pretrained(folder, dtype=torch.bfloat16)
    total = 0.0
    for number in range(len(rows)):
        ids = torch.from_numpy(rows.input_ids[rows.span(number)]).long()[None]
        wanted, found = (m(ids).logits[0].float().log_softmax(-1) for m in (plain, quantized))
        total += float((wanted.exp() * (wanted - found)).sum(-1).mean())
    return total / len(rows)


def test_the_rows_decide_how_weights_are_rounded(
    tiny_checkpoint: Path, rows: Rows, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llmcompressor")
    source = CheckpointTensors(tiny_checkpoint)
    write_w4a16(source, tmp_path / "rounded")
    capfd.readouterr()
    told: list[tuple[int, int]] = []
    before, handled = dict(os.environ), set(tmp_path.iterdir())
    facts = write_w4a16_gptq(
        tiny_checkpoint,
        tmp_path / "new",
        rows=rows,
        num_rows=12,
        max_length=32,
        on_tensor=lambda *done: told.append(done),
    )
    out, err = capfd.readouterr()
    assert out == ""
    assert "GPTQ" not in err
    assert "Calibrating" not in err
    assert dict(os.environ) == before
    assert set(tmp_path.iterdir()) - handled == {tmp_path / "new"}
    assert not list(ROOT.glob("*.log"))
    assert facts["num_calibration_rows"] == 12
    assert 12 * 16 < facts["num_calibration_tokens"] <= 12 * 32
    assert told[-1] == (len(source.names), len(source.names))
    # The same kind of checkpoint, of other numbers.
    files = [{file.name for file in (tmp_path / n).iterdir()} for n in ("new", "rounded")]
    assert files[0] == files[1]
    config = [json.loads((tmp_path / n / "config.json").read_text()) for n in ("new", "rounded")]
    assert config[0] == config[1]
    found, rounded = load_all(tmp_path / "new"), load_all(tmp_path / "rounded")
    assert {n: (t.shape, t.dtype) for n, t in found.items()} == {
        n: (t.shape, t.dtype) for n, t in rounded.items()
    }
    same = distance(tiny_checkpoint, tmp_path / "rounded", rows)
    assert distance(tiny_checkpoint, tmp_path / "new", rows) < 0.8 * same


def test_a_vision_language_model_is_calibrated_on_text_alone(
    mistral3: Path, tmp_path: Path
) -> None:
    pytest.importorskip("llmcompressor")
    generator = np.random.default_rng(0)
    rows = build_rows([generator.integers(1000, 2000, 20).tolist() for _ in range(6)])
    facts = write_w4a16_gptq(mistral3, tmp_path / "new", rows=rows, num_rows=6, max_length=64)
    assert facts == {
        "group_size": 64,
        "num_quantized_tensors": NUM_LINEARS,
        "num_calibration_rows": 6,
        "num_calibration_tokens": 120,
    }
    before, after = load_all(mistral3), load_all(tmp_path / "new")
    linears = linear_names(before)
    for name in before.keys() - linears:
        assert torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)), name
    for name in linears:
        layer = name.removesuffix("weight")
        packed = {
            part: after[layer + part] for part in ("weight_packed", "weight_scale", "weight_shape")
        }
        plain = PackedQuantizationCompressor.decompress(packed, build_scheme(64))["weight"].float()
        weight = before[name].float()
        # Rounded up or down and not to the nearest, and still the layer's own weights.
        assert 0.08 < (plain - weight).norm() / weight.norm() < 0.25, name
    model = model_class(mistral3).from_pretrained(tmp_path / "new", dtype=torch.bfloat16)
    assert model(torch.arange(1000, 1020)[None]).logits.isfinite().all()


def test_calibration_rows_are_taken_from_all_over_the_file() -> None:
    rows = build_rows([[number] * (number + 1) for number in range(10)], images={0: "", 9: ""})
    batches = build_batches(rows, num_rows=4, max_length=5)
    assert [batch["input_ids"].tolist()[0] for batch in batches] == [
        [1] * 2,
        [3] * 4,
        [6] * 5,
        [8] * 5,
    ]
    for batch in batches:
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert batch["attention_mask"].all()
    assert len(build_batches(rows, num_rows=100, max_length=5)) == 8
    with pytest.raises(UserError, match="no row without images"):
        build_batches(build_rows([[1]], images={0: ""}), num_rows=1, max_length=5)


def test_without_llmcompressor_the_extra_is_named(
    tiny_checkpoint: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it were not installed, for Python's own import as well.
    monkeypatch.setitem(sys.modules, "llmcompressor", None)
    with pytest.raises(UserError, match="needs llmcompressor") as told:
        write_w4a16_gptq(tiny_checkpoint, tmp_path / "new", rows=rows, num_rows=1, max_length=8)
    assert 'pip install "tunery[gptq]"' in str(told.value.remedy)
    with pytest.raises(UserError):
        check_gptq()
    assert list(tmp_path.iterdir()) == []


WATCHED = """
import sys
from pathlib import Path
from tests.train.no_network import watch_network

watch_network()
import numpy as np
from train.artefacts import gptq
from train.artefacts.gptq import write_w4a16_gptq
from train.rows import Rows

ids = np.arange(20, 60, dtype=np.int32)
rows = Rows(Path("x"), ids, np.ones(40, np.int8), np.array([0, 40]), {})
write_w4a16_gptq(Path(sys.argv[1]), Path(sys.argv[2]), rows=rows, num_rows=1, max_length=40)
import urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:9")
except OSError:
    pass
"""


def test_calibration_reaches_no_address(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("llmcompressor")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK")
    }
    result = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tiny_checkpoint), str(tmp_path / "new")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    # The last line's own try alone: what is watched for can be seen.
    assert result.stderr.count(REACHED) == 1
    assert "127.0.0.1" in result.stderr.partition(REACHED)[2]
    assert result.stdout == ""


def test_a_full_disk_is_told_before_anything_is_calibrated(
    tiny_checkpoint: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llmcompressor")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    monkeypatch.setattr(gptq, "calibrate", lambda *_, **__: pytest.fail("calibrated"))
    with pytest.raises(UserError, match="are needed on this disk"):
        write_w4a16_gptq(tiny_checkpoint, tmp_path / "new", rows=rows, num_rows=1, max_length=8)
    assert list(tmp_path.iterdir()) == []
