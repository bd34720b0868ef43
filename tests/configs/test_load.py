from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import (
    FilesSource,
    Icd10Source,
    MixtureSource,
)
from configs.errors import UserError
from configs.load import load_config, save_config
from configs.schema import FolderModel, HubModel
from tests.configs.minimal import MINIMAL, write_config

HUB_DATA = """\
    kind: hub
    id: owner/rows
    shape:
      kind: template
      prompt: "{{ question }}"
      answer: "{{ answer }}"
    licence: MIT
"""
JSONL_DATA = """\
    kind: files
    path: rows.jsonl
"""


def load_error(file: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_config(file)
    return caught.value


def line_of(file: Path, text: str) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    (number,) = (number for number, line in enumerate(lines, start=1) if text in line)
    return f"{file}:{number}"


# What is read.


def test_defaults_fill_a_sparse_file(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    assert (config.train.lora.rank, config.train.lora.alpha) == (16, 32)
    assert config.train.quantization == "nf4"
    assert config.merge.artefacts == ["bf16", "q8_0"]
    assert config.merge.served == "q8_0"
    assert config.evaluation.baseline.kind == "base"


def test_relative_paths_start_at_the_file_that_names_them(tmp_path: Path) -> None:
    parent_folder = tmp_path / "shared"
    parent_folder.mkdir()
    write_config(parent_folder, name="parent.yaml")
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: shared/parent.yaml\nname: child\ndata: {source: {path: own.jsonl}}\n"
    )
    config = load_config(child)
    assert isinstance(config.model.source, FolderModel)
    assert config.model.source.path == parent_folder / "weights"
    assert isinstance(config.data.source, FilesSource)
    assert config.data.source.path == tmp_path / "own.jsonl"


def test_absolute_and_home_paths_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = write_config(
        tmp_path, ("path: weights", "path: /models/a"), ("path: rows.jsonl", "path: ~/rows.jsonl")
    )
    config = load_config(file)
    assert isinstance(config.model.source, FolderModel)
    assert config.model.source.path == Path("/models/a")
    assert isinstance(config.data.source, FilesSource)
    assert config.data.source.path == tmp_path / "home" / "rows.jsonl"


MIXTURE_DATA = """\
    kind: mixture
    parts:
      - source:
          kind: files
          path: [one.jsonl, "*.csv"]
          test_path: $PLACE/test.jsonl
          shape: {kind: multiple_choice, question: q, options: [a, b], answer: key}
      - weight: 3.0
        source:
          kind: parallel_lines
          questions_path: q.txt
          answers_path: ${PLACE}/a.txt
"""


def test_paths_in_lists_and_under_variables_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "/corpora")
    source = load_config(write_config(tmp_path, (JSONL_DATA, MIXTURE_DATA))).data.source
    assert isinstance(source, MixtureSource)
    first, second = (part.source.model_dump() for part in source.parts)
    assert first["path"] == [tmp_path / "one.jsonl", tmp_path / "*.csv"]
    assert first["test_path"] == Path("/corpora/test.jsonl")
    assert second["questions_path"] == tmp_path / "q.txt"
    assert second["answers_path"] == Path("/corpora/a.txt")


def test_a_local_folder_of_a_hub_source_is_resolved_and_a_repository_is_not(tmp_path: Path) -> None:
    for written, expected in (("./rows", f"{tmp_path}/rows"), ("owner/rows", "owner/rows")):
        data = HUB_DATA.replace("id: owner/rows", f"id: {written}")
        source = load_config(write_config(tmp_path, (JSONL_DATA, data))).data.source
        assert source.model_dump()["id"] == expected


@pytest.mark.parametrize("written", ["$PLACE/x", "${PLACE}/x", "a/$PLACE"])
def test_a_variable_that_is_not_set_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.delenv("PLACE", raising=False)
    file = write_config(tmp_path, ("path: rows.jsonl", f"path: {written}"))
    error = load_error(file)
    assert error.what == "the environment variable PLACE is not set"
    assert error.where == f"{line_of(file, written)}: {written}"
    assert error.remedy == "export PLACE=... before this command"


@pytest.mark.parametrize(
    ("old", "new", "key", "remedy"),
    [
        ("- weight:", "- wieght:", "data.source.parts.1.wieght", "did you mean `weight`?"),
        ("question: q", "qestion: q", "data.source.parts.0.source.shape.qestion", "`question`?"),
        ("test_path", "tset_path", "data.source.parts.0.source.tset_path", "`test_path`?"),
    ],
)
def test_unknown_keys_deep_inside_lists_and_unions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str, remedy: str
) -> None:
    monkeypatch.setenv("PLACE", "/corpora")
    file = write_config(tmp_path, (JSONL_DATA, MIXTURE_DATA.replace(old, new)))
    error = load_error(file)
    assert error.what.startswith(f"unknown key `{key}`")
    assert error.where == line_of(file, new)
    assert error.remedy is not None
    assert error.remedy.endswith(remedy)


@pytest.mark.parametrize(
    ("written", "value"),
    [("2e-3", 0.002), ("2.0E-3", 0.002), ("0.002", 0.002), ("1e-05", 1e-5), ("1", 1.0)],
)
def test_number_forms(tmp_path: Path, written: str, value: float) -> None:
    file = write_config(tmp_path, ("num_steps: 3", f"num_steps: 1_000\n  learning_rate: {written}"))
    train = load_config(file).train
    assert type(train.learning_rate) is float
    assert train.learning_rate == value
    assert type(train.num_steps) is int
    assert train.num_steps == 1000


@pytest.mark.parametrize("written", ['"16"', "16.0", "true", "16 steps", "", "[16]"])
def test_what_is_no_whole_number_is_refused(tmp_path: Path, written: str) -> None:
    file = write_config(tmp_path, ("num_steps: 3", f"num_epochs: 1\n  batch_rows: {written}"))
    error = load_error(file)
    assert error.what == "`train.batch_rows`: input should be a valid integer"
    assert error.where == line_of(file, "batch_rows")
    told = "Rows in one optimizer step: conversations, or packed sequences."
    assert error.remedy == f"batch_rows: {told}"


@pytest.mark.parametrize("written", [".inf", ".nan", "0", "-1e-3"])
def test_a_learning_rate_is_positive_and_finite(tmp_path: Path, written: str) -> None:
    error = load_error(
        write_config(tmp_path, ("num_steps: 3", f"num_steps: 3\n  learning_rate: {written}"))
    )
    assert error.what.startswith("`train.learning_rate`: input should be ")


def test_anchors_and_merge_keys_are_read(tmp_path: Path) -> None:
    file = write_config(
        tmp_path,
        ("train:\n", "train:\n  <<: {batch_rows: 8, micro_batch_rows: 4}\n"),
    )
    train = load_config(file).train
    assert (train.batch_rows, train.micro_batch_rows, train.num_steps) == (8, 4, 3)


def test_an_error_in_a_merged_key_is_told_at_its_section(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("train:\n", "train:\n  <<: {batch_rws: 8}\n"))
    error = load_error(file)
    assert error.what == "unknown key `train.batch_rws`"
    assert error.where == line_of(file, "train:")


@given(text=st.text(min_size=1, max_size=40))
def test_any_text_survives_saving(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("saved")
    config = load_config(write_config(folder))
    told = config.model_copy(update={"description": text})
    save_config(told, folder / "complete.yaml")
    assert load_config(folder / "complete.yaml") == told


@given(rate=st.floats(min_value=1e-12, max_value=1e6), steps=st.integers(1, 10**9))
def test_any_number_survives_saving(
    tmp_path_factory: pytest.TempPathFactory, rate: float, steps: int
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    config = load_config(write_config(folder))
    train = config.train.model_copy(update={"learning_rate": rate, "num_steps": steps})
    told = config.model_copy(update={"train": train})
    save_config(told, folder / "complete.yaml")
    assert load_config(folder / "complete.yaml") == told


# Unknown and missing keys.


def test_unknown_key_names_the_nearest_one_and_its_line(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("  num_steps: 3", "  num_steps: 3\n  leraning_rate: 1e-4"))
    error = load_error(file)
    assert error.what == "unknown key `train.leraning_rate`"
    assert error.where == line_of(file, "leraning_rate")
    assert error.remedy == "did you mean `learning_rate`?"


def test_misspelt_required_key_is_told_as_unknown_not_as_missing(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("licence: MIT", "license: MIT"))
    error = load_error(file)
    assert error.what == "unknown key `model.license` (1 more after this one)"
    assert error.remedy == "did you mean `licence`?"


def test_unknown_key_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    error = load_error(write_config(tmp_path, ("train:\n", "train:\n  zzzz: 1\n")))
    assert error.remedy is not None
    assert error.remedy.startswith("known keys: method, preference, quantization, lora, ")


def test_unknown_key_inside_a_kind(tmp_path: Path) -> None:
    file = write_config(
        tmp_path, (JSONL_DATA, HUB_DATA.replace("    shape:", "    test_spilt: test\n    shape:"))
    )
    error = load_error(file)
    assert error.what == "unknown key `data.source.test_spilt`"
    assert error.where == line_of(file, "test_spilt")
    assert error.remedy == "did you mean `test_split`?"


def test_key_of_another_kind_is_unknown_in_this_one(tmp_path: Path) -> None:
    file = write_config(tmp_path, (JSONL_DATA, "    kind: icd10_chapters\n    path: x\n"))
    error = load_error(file)
    assert error.what == "unknown key `data.source.path`"
    assert error.remedy == "known keys: kind"


def test_unknown_key_deep_in_a_section(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("num_steps: 3", "num_steps: 3\n  lora:\n    rnak: 8"))
    error = load_error(file)
    assert error.what == "unknown key `train.lora.rnak`"
    assert error.where == line_of(file, "rnak")
    assert error.remedy == "did you mean `rank`?"


def test_unknown_key_in_an_extended_parent_is_told_there(tmp_path: Path) -> None:
    parent = write_config(tmp_path, ("num_steps: 3", "num_stpes: 3"), name="parent.yaml")
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nname: child\ntrain:\n  num_steps: 3\n")
    error = load_error(child)
    assert error.what == "unknown key `train.num_stpes`"
    assert error.where == line_of(parent, "num_stpes")
    assert error.remedy == "did you mean `num_steps`?"


def test_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    source = "data:\n  source:\n"
    file = write_config(
        tmp_path, ("kind: files", "kind: file"), (source, source.replace(":\n  ", ":\n\n  "))
    )
    error = load_error(file)
    assert error.what.startswith("`data.source`: input tag 'file' found using 'kind'")
    assert "'files'" in error.what
    number = 1 + file.read_text().splitlines().index("data:")
    assert error.where == f"{file}:{number + 2}"


def test_missing_key_is_told_at_its_section_with_its_meaning(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("  licence: MIT\n", ""))
    error = load_error(file)
    assert error.what == "`model.licence` is missing"
    assert error.where == line_of(file, "model:")
    assert error.remedy == "licence: SPDX id of the weights' licence; repeated in the reports."


def test_key_in_place_of_the_keys_name_is_refused(tmp_path: Path) -> None:
    hosted = (
        "task: a task\n  baseline: {kind: hosted, base_url: 'https://h/v1', model: m, "
        "api_key_env: KEY, api_key: secret}"
    )
    error = load_error(write_config(tmp_path, ("task: a task", hosted)))
    assert error.what == "unknown key `evaluation.baseline.api_key`"
    assert error.remedy == "did you mean `api_key_env`?"


# Rules across fields.


@pytest.mark.parametrize(
    ("old", "new", "what", "section"),
    [
        (
            "num_steps: 3",
            "num_steps: 3\n  num_epochs: 1",
            "`train`: give exactly one of num_steps and num_epochs",
            "train:",
        ),
        (
            "num_steps: 3",
            "num_steps: 3\n  batch_rows: 16\n  micro_batch_rows: 5",
            "`train`: micro_batch_rows (5) must divide batch_rows (16)",
            "train:",
        ),
    ],
)
def test_rules_across_fields_name_both(
    tmp_path: Path, old: str, new: str, what: str, section: str
) -> None:
    file = write_config(tmp_path, (old, new))
    error = load_error(file)
    assert error.what == what
    assert error.where == line_of(file, section)


def test_rules_across_sections_name_both(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("task: a task", "task: a task\n  max_tokens: 2048"))
    error = load_error(file)
    assert error.what == "evaluation.max_tokens (2048) must be below serve.context_length (2048)"
    assert error.where == str(file)


def test_a_base_that_the_adapter_never_saw_is_refused(tmp_path: Path) -> None:
    train = "num_steps: 3\n  quantization: none\nmerge:\n  base: nf4"
    error = load_error(write_config(tmp_path, ("num_steps: 3", train)))
    assert error.what.startswith("merge.base: nf4 adds to weights that an adapter")


def test_adapters_are_found_from_the_file_that_names_them(tmp_path: Path) -> None:
    added = "num_steps: 3\nmerge:\n  further_adapters:\n  - path: other/adapter"
    config = load_config(write_config(tmp_path, ("num_steps: 3", added)))
    (adapter,) = config.merge.further_adapters
    assert adapter.path == tmp_path.resolve() / "other" / "adapter"
    assert adapter.weight == 1


# Extending.


def test_child_changes_single_keys_of_its_parents(tmp_path: Path) -> None:
    write_config(tmp_path, ("num_steps: 3", "num_steps: 3\n  lora: {rank: 8}"), name="a.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\ntrain:\n  lora: {alpha: 64}\n")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\nname: c\ntrain: {num_steps: 9}\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.name, config.train.num_steps) == ("c", 9)
    assert (config.train.lora.rank, config.train.lora.alpha) == (8, 64)
    assert config.model.name == "tiny"


def test_section_of_another_kind_replaces_the_parents(tmp_path: Path) -> None:
    write_config(tmp_path, (JSONL_DATA, HUB_DATA), name="parent.yaml")
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: parent.yaml\n"
        "data:\n  source: {kind: icd10_chapters}\n"
        "model:\n  source: {kind: hub, id: owner/model}\n"
    )
    config = load_config(child)
    assert config.data.source == Icd10Source(kind="icd10_chapters")
    assert config.model.source == HubModel(kind="hub", id="owner/model")
    assert config.model.name == "tiny"


def test_going_round_in_a_circle_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    error = load_error(tmp_path / "a.yaml")
    assert error.what == "`extends` goes round in a circle"
    assert error.where is not None
    assert [Path(name).name for name in error.where.split(" -> ")] == ["a.yaml", "b.yaml", "a.yaml"]


def test_missing_parent_is_told_at_the_line_that_names_it(tmp_path: Path) -> None:
    write_config(tmp_path, name="parent.yaml")
    child = tmp_path / "child.yaml"
    child.write_text("name: child\nextends: parnet.yaml\n")
    error = load_error(child)
    assert error.what == f"`extends` names a file that is not there: {tmp_path / 'parnet.yaml'}"
    assert error.where == f"{child}:2"
    assert error.remedy == f"did you mean {tmp_path / 'parent.yaml'}?"


# Files that are no configuration.


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    file = write_config(tmp_path)
    error = load_error(tmp_path / "minimul.yaml")
    assert error.what == "configuration file not found"
    assert error.remedy == f"did you mean {file}?"


def test_missing_file_in_an_empty_folder(tmp_path: Path) -> None:
    error = load_error(tmp_path / "a.yaml")
    assert (error.what, error.remedy) == ("configuration file not found", "check the path")


def test_duplicate_key_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text(MINIMAL + "name: again\n")
    error = load_error(file)
    assert error.what.startswith('not valid YAML: found duplicate key "name"')
    assert error.where == f"{file}:{len(MINIMAL.splitlines()) + 1}"


def test_broken_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    file = write_config(tmp_path, ("  licence: MIT", "  licence: [MIT"))
    error = load_error(file)
    assert error.what.startswith("not valid YAML: ")
    assert error.where is not None
    assert error.where.startswith(f"{file}:")


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"just words\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    assert load_error(file).what == "a configuration is a mapping of sections"


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin1.yaml"
    file.write_bytes("name: caf\xe9\n".encode("latin-1"))
    error = load_error(file)
    assert error.what.startswith("cannot read the configuration: 'utf-8' codec")
    assert error.where == str(file)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert load_error(tmp_path).what.startswith("cannot read the configuration: ")
