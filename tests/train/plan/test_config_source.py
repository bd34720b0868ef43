import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from configs.errors import UserError
from configs.load import load_config
from configs.schema import FolderModel, HubModel, ModelConfig, PackageModel
from train.plan.config_source import find_architecture

ROOT = Path(__file__).parents[3]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "vocab_size": 500,
    "max_position_embeddings": 512,
}


def model_of(source: FolderModel | HubModel | PackageModel) -> ModelConfig:
    return ModelConfig(name="m", licence="MIT", source=source)


def demo_source(**changes: str) -> PackageModel:
    source = load_config(ROOT / "configs" / "demo-legal.yaml").model.source
    return PackageModel.model_validate(source.model_dump() | changes)


def test_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = find_architecture(model_of(FolderModel(kind="folder", path=tmp_path)))
    assert found.architecture.hidden == 64
    # Without the key there is one key and value head for each query's.
    assert found.architecture.num_kv_heads == 8
    assert found.told == str(tmp_path / "config.json")


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_folder_without_a_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="cannot read the model's configuration"):
        find_architecture(model_of(FolderModel(kind="folder", path=tmp_path)))


def test_a_package_is_known_before_and_after_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path))
    model = model_of(demo_source())
    assert find_architecture(model).told == "a copy that comes with Tunery"
    folder = tmp_path / "models" / "SmolLM2-135M-Instruct.Q4_1-b179c9523d0e6a0f"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert find_architecture(model).architecture.hidden == 64


def test_another_package_has_to_be_fetched_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"(?s)not known before.*tunery prepare"):
        find_architecture(model_of(demo_source(file="other/Model.gguf")))


def test_a_hub_model_is_read_from_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--maker--tiny" / "snapshots" / "0123"
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    found = find_architecture(model_of(HubModel(kind="hub", id="maker/tiny")))
    assert found.architecture.vocabulary == 500


@pytest.mark.parametrize("name", ["maker/elsewhere", "not a name"])
def test_a_hub_model_that_cannot_be_fetched_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot fetch the config.json of"):
        find_architecture(model_of(HubModel(kind="hub", id=name)))


def test_the_shipped_copy_of_the_demos_model_is_that_of_its_weights() -> None:
    """Held against the converted checkpoint where a cache has it; its numbers otherwise."""
    shipped = json.loads((ROOT / "train/plan/architectures/SmolLM2-135M-Instruct.json").read_text())
    assert (shipped["hidden_size"], shipped["num_hidden_layers"]) == (576, 30)
