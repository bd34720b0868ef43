import asyncio
from pathlib import Path

import pytest

from configs.errors import UserError
from serve.llama_loading import load_llama_server
from tests.serve.engines.asking import running
from tests.serve.tiny_llama import CONTEXT_LENGTH, build_tiny_gguf


def load(file: Path) -> None:
    load_llama_server(file, num_threads=1, context_length=256, num_slots=1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist") as error:
        load(tmp_path / "none.gguf")
    assert error.value.where == str(tmp_path / "none.gguf")


def test_another_format_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"{}" * 10)
    with pytest.raises(UserError, match="not a GGUF file"):
        load(file)


def test_a_cut_file_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(tiny_gguf.read_bytes()[:-10_000])
    with pytest.raises(UserError, match="could not load the model") as error:
        load(file)
    assert error.value.remedy is not None
    assert "check that the file is whole" in error.value.remedy


def test_a_file_without_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no chat template"):
        load(build_tiny_gguf(tmp_path, chat_template=None))


def test_more_context_than_the_model_was_trained_for_is_cut_with_a_warning(
    tiny_gguf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def context_length() -> int | None:
        async with running(tiny_gguf, context_length=CONTEXT_LENGTH * 2) as engine:
            return engine.models[0].context_length

    assert asyncio.run(context_length()) == CONTEXT_LENGTH
    assert str(CONTEXT_LENGTH) in caplog.text


def test_llama_cpps_own_interface_is_closed(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loaded = load_llama_server(tiny_gguf, num_threads=1, context_length=256, num_slots=1)
    address = loaded.server.listening_address
    assert address.startswith(f"unix://{tmp_path}")
    assert not Path(address.removeprefix("unix://")).exists()
    assert list(tmp_path.iterdir()) == []
