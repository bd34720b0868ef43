"""What of a run is served, and what it is told to make where that is lacking."""

from pathlib import Path

import pytest

from configs.errors import UserError
from configs.serve_schema import LlamaCppConfig, RecordingConfig, ServeConfig
from serve.of_runs import as_measured, settings_of_run, settings_of_runs
from tests.serve.merged_runs import make_run

BOTH = {"variant": None, "base": None}
ALL = BOTH | {"adapter": None}
EXPORTED = {"adapter_exports": ["llamacpp"]}


def test_a_run_is_its_merged_variant_beside_its_base(tmp_path: Path) -> None:
    run = make_run(tmp_path, "one", files=BOTH, serve={"num_slots": 3, "aliases": ["x"]})
    settings = settings_of_run(run)
    [variant] = settings.variants
    artefacts = tmp_path / "runs" / "one" / "artefacts"
    assert (variant.name, variant.artefact) == ("one", artefacts / "one.q8_0.gguf")
    assert (settings.base_name, settings.base) == ("tiny", artefacts / "base.q8_0.gguf")
    assert settings.serve == run[1].serve
    assert settings.folder == tmp_path / "runs" / "one" / "serve"
    assert settings.runs == [tmp_path / "runs" / "one"]
    assert settings.mmproj is None


def test_a_vision_tower_is_served_where_there_is_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, "one", files=BOTH)
    tower = tmp_path / "runs" / "one" / "artefacts" / "one.mmproj.gguf"
    tower.touch()
    assert settings_of_run(run).mmproj == tower


def test_without_a_base_the_variant_is_served_all_the_same(tmp_path: Path) -> None:
    settings = settings_of_run(make_run(tmp_path, "one", files={"variant": None}))
    assert (settings.base, settings.base_name) == (None, None)


def test_the_base_alone_has_its_own_name_and_neither_routes_nor_aliases(tmp_path: Path) -> None:
    serve = {"aliases": ["x"], "routes": {"y": {"to": "base"}}, "num_slots": 2}
    settings = settings_of_run(make_run(tmp_path, "one", files=BOTH, serve=serve), base=True)
    [variant] = settings.variants
    assert variant.name == "tiny"
    assert variant.artefact is not None
    assert variant.artefact.name == "base.q8_0.gguf"
    assert (settings.serve.aliases, settings.serve.routes) == ([], {})
    assert settings.serve.num_slots == 2


def test_a_base_that_was_not_made_cannot_be_served(tmp_path: Path) -> None:
    run = make_run(tmp_path, "one", files={"variant": None})
    with pytest.raises(UserError) as error:
        settings_of_run(run, base=True)
    said = "this run made no artefact of the base, because its evaluation does not ask it"
    assert error.value.what == said
    assert error.value.where == str(tmp_path / "runs" / "one")
    assert "set evaluation.baseline to {kind: base}" in str(error.value.remedy)


def test_a_run_that_is_not_merged_is_told_what_to_do(tmp_path: Path) -> None:
    run, other = (make_run(tmp_path, name, merged=name == "one") for name in ("one", "two"))
    with pytest.raises(UserError, match="stage merge has not finished") as error:
        settings_of_run(other)
    assert "tunery merge" in str(error.value.remedy)
    with pytest.raises(UserError, match="stage merge has not finished"):
        settings_of_runs([run, other])


def test_several_runs_are_their_adapters_on_the_first_ones_base(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, name, files=ALL, merge=EXPORTED, serve={"num_slots": slots})
        for name, slots in (("one", 2), ("two", 1))
    ]
    settings = settings_of_runs(runs)
    assert settings.runs == [run.path for run, _ in runs]
    folder = tmp_path / "runs"
    assert [(variant.name, variant.adapter) for variant in settings.variants] == [
        ("one", folder / "one" / "artefacts" / "one.lora.gguf"),
        ("two", folder / "two" / "artefacts" / "two.lora.gguf"),
    ]
    assert settings.base == folder / "one" / "artefacts" / "base.q8_0.gguf"
    assert settings.base_name == "tiny"
    assert settings.serve.num_slots == 2
    assert settings.folder == folder / "one" / "serve"
    assert settings.is_shared


def test_runs_of_different_bases_are_told_apart(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, name, files=ALL, merge=EXPORTED, weights=weights)
        for name, weights in (("one", "weights"), ("two", "others"))
    ]
    with pytest.raises(UserError) as error:
        settings_of_runs(runs)
    assert error.value.what == "two and one have different bases"
    assert error.value.where == str(tmp_path / "runs" / "two" / "config.yaml")
    assert error.value.remedy == "serve them from a server each"


def test_runs_without_a_base_cannot_share_it(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, name, files={"variant": None, "adapter": None}, merge=EXPORTED)
        for name in ("one", "two")
    ]
    with pytest.raises(UserError) as error:
        settings_of_runs(runs)
    said = "several variants share their base, of which this run made no artefact"
    assert error.value.what == said
    assert error.value.where == str(tmp_path / "runs" / "one")


def test_the_run_without_an_adapter_is_named(tmp_path: Path) -> None:
    one = make_run(tmp_path, "one", files=ALL, merge=EXPORTED)
    two = make_run(tmp_path, "two", files=BOTH)
    with pytest.raises(UserError) as error:
        settings_of_runs([one, two])
    assert error.value.what == "two has no adapter that llamacpp loads beside the base"
    assert error.value.where == str(tmp_path / "runs" / "two" / "config.yaml")
    assert error.value.remedy == "add llamacpp to merge.adapter_exports and merge again"


def test_what_is_measured_is_what_answers_without_what_concerns_clients(tmp_path: Path) -> None:
    serve = {
        "host": "0.0.0.0",
        "port": 8123,
        "num_threads": 3,
        "context_length": 512,
        "num_slots": 2,
        "silence_s": 17.0,
        "aliases": ["x"],
        "routes": {"y": {"to": "hosted"}, "one": {"shadow": "base"}},
        "hosted": {"base_url": "https://example.org/v1", "model": "m", "api_key_env": "NO_SUCH"},
        "recordings": {"texts": True},
        "api_keys_path": "keys.json",
        "max_body_mib": 1,
        "image_urls": False,
    }
    settings = settings_of_run(make_run(tmp_path, "one", files=BOTH, serve=serve))
    assert settings.serve.port == 8123
    measured = as_measured(settings)
    told = measured.serve
    assert (told.host, told.port) == ("127.0.0.1", 0)
    assert (told.num_threads, told.context_length, told.num_slots) == (3, 512, 2)
    assert (told.engine, told.silence_s) == (LlamaCppConfig(), 17.0)
    assert (told.aliases, told.routes, told.hosted, told.api_keys_path) == ([], {}, None, None)
    assert told.recordings == RecordingConfig()
    assert told.workbench is False
    assert told.max_body_mib == ServeConfig().max_body_mib
    assert measured.model_copy(update={"serve": settings.serve}) == settings
