import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from configs.evaluation_schema import HostedBaseline
from configs.load import load_config, save_config
from configs.schema import HubModel, PackageModel, RunConfig
from configs.section import Section

CONFIGS = Path(__file__).parents[2] / "configs"
SHARED_PARENTS = {"demo.yaml", "24b.yaml", "parent.yaml"}
VARIANTS = sorted(file for file in CONFIGS.rglob("*.yaml") if file.name not in SHARED_PARENTS)
DEMOS = [file for file in VARIANTS if file.name.startswith("demo-")]
CORPORA = [file for file in VARIANTS if file.parent.name == "corpora"]
LARGE = [file for file in VARIANTS if file not in DEMOS + CORPORA]


@pytest.fixture(autouse=True)
def corpora_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variants on public corpora name their folder by this variable."""
    monkeypatch.setenv("TUNERY_CORPORA", "/corpora")


def sections(parent: type[Section] = Section) -> Iterator[type[Section]]:
    for section in parent.__subclasses__():
        yield section
        yield from sections(section)


def name_of(file: Path) -> str:
    return file.stem


def test_the_shared_parents_are_the_only_files_without_a_name() -> None:
    nameless = {
        file.name for file in CONFIGS.rglob("*.yaml") if "name" not in YAML(typ="safe").load(file)
    }
    assert nameless == SHARED_PARENTS
    assert len(DEMOS) >= 3
    assert len(LARGE) >= 3
    assert len(CORPORA) >= 5


@pytest.mark.parametrize("file", VARIANTS, ids=name_of)
def test_every_variant_parses_and_survives_saving(file: Path, tmp_path: Path) -> None:
    config = load_config(file)
    assert config.name == file.stem
    save_config(config, tmp_path / "complete.yaml")
    assert load_config(tmp_path / "complete.yaml") == config


@pytest.mark.parametrize("file", LARGE, ids=name_of)
def test_24b_variants_compare_with_the_hosted_model(file: Path) -> None:
    config = load_config(file)
    baseline = config.evaluation.baseline
    assert isinstance(baseline, HostedBaseline)
    assert baseline.base_url.startswith("https://")
    assert baseline.api_key_env == "OXEN_API_KEY"
    assert isinstance(config.model.source, HubModel)
    assert config.model.source.id == "mistralai/Mistral-Small-3.1-24B-Instruct-2503"
    assert config.train.quantization == "nf4"


@pytest.mark.parametrize("file", DEMOS, ids=name_of)
def test_demos_need_no_hub(file: Path) -> None:
    config = load_config(file)
    assert isinstance(config.model.source, PackageModel)
    assert config.evaluation.baseline.kind == "base"
    assert config.data.source.kind not in ("hub", "preset", "files")


def test_local_paths_are_exactly_the_fields_named_path() -> None:
    """The loader resolves what is named so, without knowing which section it stands in."""
    for section in sections():
        if not section.__module__.startswith("configs."):
            continue  # what servers hand to their processes is not read by it
        for name, field in section.model_fields.items():
            named = name == "path" or name.endswith("_path")
            assert named == ("Path" in repr(field.annotation)), f"{section.__name__}.{name}"


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_field_is_described(section: type[Section]) -> None:
    undescribed = [name for name, field in section.model_fields.items() if not field.description]
    assert not undescribed


def test_the_walk_over_sections_reaches_the_root_and_the_leaves() -> None:
    found = {section.__name__ for section in sections()}
    assert {"RunConfig", "LoraConfig", "PackageModel", "HubDataSource", "HostedBaseline"} <= found


def test_a_configuration_cannot_be_changed_after_loading() -> None:
    config = load_config(DEMOS[0])
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


def test_steps_or_epochs_but_not_both_and_not_neither() -> None:
    tree = load_config(DEMOS[0]).model_dump()
    for steps, epochs in ((None, None), (5, 1.0)):
        train = tree["train"] | {"num_steps": steps, "num_epochs": epochs}
        with pytest.raises(ValidationError, match="exactly one of num_steps and num_epochs"):
            RunConfig.model_validate(tree | {"train": train})


def test_checking_a_configuration_loads_no_machine_learning_library() -> None:
    modules = "configs.schema, configs.load, configs.run_directory, configs.status"
    heavy = {"torch", "transformers", "datasets", "pyarrow", "numpy"}
    program = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=CONFIGS.parent,
    )
    assert result.stdout.strip() == "[]"
