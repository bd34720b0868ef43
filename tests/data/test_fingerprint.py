import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import FolderModel, HubDataSource, Icd10Source, JsonlSource, ModelConfig
from data.fingerprint import model_fingerprint, source_fingerprint

ROOT = Path(__file__).parents[2]


def hub_source(id: str | Path) -> HubDataSource:
    return HubDataSource(kind="hub", id=str(id), prompt="{{ q }}", answer="{{ a }}", licence="x")


def test_a_local_file_is_told_by_its_content(tmp_path: Path) -> None:
    source = JsonlSource(kind="jsonl", path=tmp_path / "rows.jsonl")
    found = []
    for content in ("{}", "[]", "{}"):
        source.path.write_text(content)
        found.append(source_fingerprint(source))
    assert found[0] == found[2]
    assert found[0] != found[1]


def test_a_local_folder_is_told_by_its_files_and_their_names(tmp_path: Path) -> None:
    source = hub_source(tmp_path)
    (tmp_path / "sub").mkdir()
    first = tmp_path / "sub" / "train.jsonl"
    first.write_text("one")
    before = source_fingerprint(source)
    assert source_fingerprint(source) == before
    first.write_text("two")
    assert source_fingerprint(source) != before
    first.write_text("one")
    assert source_fingerprint(source) == before
    second = first.rename(tmp_path / "sub" / "test.jsonl")
    assert source_fingerprint(source) != before
    second.rename(first)
    (tmp_path / "test.jsonl").write_text("")
    assert source_fingerprint(source) != before


def test_pinned_sources_are_told_by_their_configuration() -> None:
    assert source_fingerprint(Icd10Source(kind="icd10_chapters")) == ""
    assert source_fingerprint(hub_source("owner/rows")) == ""


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the data file: No such file") as caught:
        source_fingerprint(JsonlSource(kind="jsonl", path=tmp_path / "none.jsonl"))
    assert caught.value.where == str(tmp_path / "none.jsonl")


def test_it_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "datasets", "pyarrow"}
    program = f"import sys, data.fingerprint; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_a_local_checkpoint_is_told_by_its_files(tmp_path: Path) -> None:
    source = FolderModel(kind="folder", path=tmp_path)
    model = ModelConfig(name="m", licence="MIT", source=source)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    os.utime(weights, ns=(1, 1))
    assert model_fingerprint(model) != before
