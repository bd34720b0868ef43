import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.data_schema import (
    FilesSource,
    HubDataSource,
    Icd10Source,
    ParallelLinesSource,
    PresetSource,
)
from configs.errors import UserError
from configs.load import load_config
from configs.schema import FolderModel, ModelConfig, RunConfig
from data.fingerprint import data_fingerprint, model_fingerprint, source_fingerprint
from tests.configs.minimal import write_config

ROOT = Path(__file__).parents[2]


def files_source(**options: Any) -> FilesSource:  # noqa: ANN401
    return FilesSource.model_validate({"kind": "files"} | options)


def test_a_local_file_is_told_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    found = []
    for content in ("{}", "[]", "{}"):
        file.write_text(content)
        found.append(source_fingerprint(files_source(path=file)))
    assert found[0] == found[2]
    assert found[0] != found[1]


def test_every_file_that_a_source_names_counts(tmp_path: Path) -> None:
    names = ("a.jsonl", "b.jsonl", "dev.jsonl", "test.jsonl", "ids")
    for name in names:
        (tmp_path / name).write_text(name)
    source = files_source(
        path=[tmp_path / "[ab].jsonl"],
        validation_path=tmp_path / "dev.jsonl",
        test_path=tmp_path / "test.jsonl",
        test_ids_path=tmp_path / "ids",
    )
    before = source_fingerprint(source)
    for name in names:
        (tmp_path / name).write_text("changed")
        assert source_fingerprint(source) != before, name
        (tmp_path / name).write_text(name)
        assert source_fingerprint(source) == before


def test_a_file_that_a_glob_finds_later_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("a")
    source = files_source(path=tmp_path / "*.jsonl")
    before = source_fingerprint(source)
    (tmp_path / "b.jsonl").write_text("")
    assert source_fingerprint(source) != before


def test_files_that_change_places_count(tmp_path: Path) -> None:
    first, second = tmp_path / "q", tmp_path / "a"
    first.write_text("1")
    second.write_text("2")
    one = ParallelLinesSource(kind="parallel_lines", questions_path=first, answers_path=second)
    other = ParallelLinesSource(kind="parallel_lines", questions_path=second, answers_path=first)
    assert source_fingerprint(one) != source_fingerprint(other)


def test_a_local_folder_is_told_by_its_files_and_their_names(tmp_path: Path) -> None:
    source = HubDataSource(kind="hub", id=str(tmp_path))
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
    assert source_fingerprint(HubDataSource(kind="hub", id="owner/rows")) == ""
    assert source_fingerprint(PresetSource(kind="preset", name="medqa")) == ""


def test_parts_of_a_mixture_and_evaluation_sets_count(tmp_path: Path) -> None:
    places = {name: tmp_path / f"{name}.jsonl" for name in ("own", "listed", "task")}
    for place in places.values():
        place.write_text("1")
    listed, asked = ({"kind": "files", "path": places[name]} for name in ("listed", "task"))
    own = {"kind": "files", "path": places["own"]}
    parts = [{"source": {"kind": "icd10_chapters"}}, {"source": own}]
    config = run_config(
        tmp_path,
        data={"source": {"kind": "mixture", "parts": parts}, "contamination": {"tasks": [listed]}},
        evaluation={"tasks": [{"name": "further", "source": asked}]},
    )
    before = data_fingerprint(config)
    for place in places.values():
        place.write_text("2")
        assert data_fingerprint(config) != before
        place.write_text("1")
        assert data_fingerprint(config) == before


def test_pinned_sources_have_no_fingerprint(tmp_path: Path) -> None:
    pinned = {"source": {"kind": "icd10_chapters"}}
    assert data_fingerprint(run_config(tmp_path, data=pinned)) == ""


def run_config(
    folder: Path, *, data: dict[str, Any], evaluation: dict[str, Any] | None = None
) -> RunConfig:
    written = load_config(write_config(folder)).model_dump()
    written["data"] = data
    written["evaluation"] |= evaluation or {}
    return RunConfig.model_validate(written)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the data file: No such file") as caught:
        source_fingerprint(files_source(path=tmp_path / "none.jsonl"))
    assert caught.value.where == f"path: {tmp_path / 'none.jsonl'}"


def test_it_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "datasets", "pyarrow", "numpy", "orjson", "jinja2"}
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
