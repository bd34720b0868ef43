from pathlib import Path

import pytest

from configs.load import load_config
from configs.schema import FolderModel, RunConfig
from tests.train.plan.measured_peak import SMALL, build_shape
from train.adapter import build_model
from train.lora import save_adapter
from train.nf4_checkpoint import resolve_nf4
from train.plan.build import Planner
from train.plan.config_source import find_architecture
from train.plan.disk import plan_disk

ROOT = Path(__file__).parents[3]


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def plan_of(config: RunConfig) -> dict[str, float]:
    planner = Planner(find_architecture(config.model).architecture, "cuda", budget=0)
    return plan_disk(config, planner.step(config.train, config.model.max_length))


def test_sizes_are_those_of_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "cache"))
    checkpoint = build_shape(tmp_path / "base", SMALL)
    demo = load_config(ROOT / "configs" / "demo-legal.yaml")
    model = demo.model.model_copy(update={"source": FolderModel(kind="folder", path=checkpoint)})
    config = demo.model_copy(update={"model": model})
    disk = plan_of(config)
    (tmp_path / "adapter").mkdir()
    save_adapter(build_model(config.train, checkpoint), tmp_path / "adapter", base_name="base")
    assert disk["download"] == 0
    for name, folder in (
        ("nf4_checkpoint", resolve_nf4(checkpoint)),
        ("adapter", tmp_path / "adapter"),
        ("merged", checkpoint),
    ):
        # Names and shapes of many small tensors are what is left out.
        assert disk[name] * 2**30 == pytest.approx(folder_bytes(folder), rel=0.05), name


def test_a_24b_run_downloads_48_gigabytes_and_keeps_a_quarter_of_it() -> None:
    disk = plan_of(load_config(ROOT / "configs" / "legal.yaml"))
    assert disk["download"] * 2**30 == pytest.approx(48.0e9, rel=0.01)
    assert disk["nf4_checkpoint"] < disk["download"] / 3
    assert disk["total"] == pytest.approx(sum(v for k, v in disk.items() if k != "total"))


def test_a_base_that_is_the_baseline_is_a_second_gguf() -> None:
    demo = load_config(ROOT / "configs" / "demo-legal.yaml")
    disk = plan_of(demo)
    # llama.cpp's Q8_0 of this model has 138 MiB.
    assert disk["artefacts"] * 1024 / 2 == pytest.approx(138, rel=0.02)


def test_pissa_is_saved_with_twice_its_rank_in_fp32() -> None:
    config = load_config(ROOT / "configs" / "demo-legal.yaml")
    plain = config.model_copy(
        update={"train": config.train.model_copy(update={"quantization": "none"})}
    )
    lora = config.train.lora.model_copy(update={"init": "pissa"})
    pissa = plain.model_copy(update={"train": plain.train.model_copy(update={"lora": lora})})
    assert plan_of(pissa)["adapter"] == pytest.approx(4 * plan_of(plain)["adapter"])
