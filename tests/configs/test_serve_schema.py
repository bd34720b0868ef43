"""What is said about a `serve` section that cannot be."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import load_config
from configs.schema import RunConfig
from configs.serve_schema import LlamaCppConfig, RouteConfig, ServeConfig, TargetName, VllmConfig
from tests.configs.minimal import write_config

ALL = {"variant", "base", "hosted"}


def load_serve(folder: Path, *lines: str) -> RunConfig:
    """The shortest configuration with these lines below `serve:`."""
    file = write_config(folder)
    section = "".join(f"  {line}\n" for line in lines)
    file.write_text(f"{file.read_text(encoding='utf-8')}serve:\n{section}", encoding="utf-8")
    return load_config(file)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (
            "{split: {variant: 10.0}}",
            "split gives variant a share, which already has the rest by `to`",
        ),
        ("{split: {base: 60.0, hosted: 60.0}}", "split gives away more than 100 percent"),
        ("{shadow: variant}", "shadow and fallback must differ from `to` (variant)"),
        ("{to: base, fallback: base}", "shadow and fallback must differ from `to` (base)"),
        ("{split: {base: 0.0}}", "greater than 0"),
        ("{split: {base: 100.0}}", "less than 100"),
        ("{to: nobody}", "'variant', 'base' or 'hosted'"),
    ],
)
def test_a_route_that_contradicts_itself_is_told_with_its_line(
    route: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        load_serve(tmp_path, "routes:", f"  other: {route}")
    assert said in str(error.value)
    assert "`serve.routes" in str(error.value)
    assert f"{tmp_path / 'minimal.yaml'}:" in str(error.value.where)


@pytest.mark.parametrize(
    "route",
    ["{to: hosted}", "{split: {hosted: 5.0}}", "{shadow: hosted}", "{fallback: hosted}"],
)
def test_a_route_to_a_host_that_is_not_given_is_told(route: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_serve(tmp_path, "routes:", f"  mistral-small: {route}")
    said = "routes.mistral-small leads to `hosted`: say where in serve.hosted"
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("engine: {kind: vlm}",), "'llamacpp', 'vllm'"),
        (("engine: {kind: llamacpp, command: [vllm]}",), "serve.engine"),
        (("engine: {kind: vllm, command: []}",), "at least 1 item"),
        (("engine: {kind: vllm, artefact: q8_0}",), "'w4a16' or 'bf16'"),
        (("engine: {kind: vllm, memory_share: 0.0}",), "greater than 0"),
        (("engine: {kind: vllm, tensor_parallel: 0}",), "greater than or equal to 1"),
        (("hosted: {base_url: ftp://example.org, model: m}",), "serve.hosted.base_url"),
        (("hosted: {base_url: https://example.org}",), "serve.hosted.model"),
        (("port: 65536",), "less than or equal to 65535"),
        (("context_length: 100",), "greater than or equal to 128"),
        (("num_slots: 0",), "greater than or equal to 1"),
        (("max_waiting: -1",), "greater than or equal to 0"),
        (("recordings: {keep_days: 0.0}",), "serve.recordings.keep_days"),
        (("recordings: {text: true}",), "`texts`"),
        (("api_key_path: keys.json",), "`api_keys_path`"),
        (("max_body_mib: 0",), "serve.max_body_mib"),
        (("keep_alive_s: 0.0",), "serve.keep_alive_s"),
        (("silence_s: 0.0",), "serve.silence_s"),
        (("drain_s: -1.0",), "serve.drain_s"),
        (("num_threads: 0",), "serve.num_threads"),
    ],
)
def test_what_cannot_be_served_is_told(lines: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_serve(tmp_path, *lines)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("route", "targets"),
    [
        ({}, {"variant"}),
        ({"to": "base", "shadow": "hosted"}, {"base", "hosted"}),
        ({"to": "hosted", "split": {"variant": 5.0}, "fallback": "base"}, ALL),
        ({"split": {"base": 50.0, "hosted": 50.0}}, ALL),
    ],
)
def test_targets_are_all_that_a_request_may_reach(
    route: dict[str, Any], targets: set[TargetName]
) -> None:
    assert RouteConfig.model_validate(route).targets == targets


def test_all_that_may_leave_the_machine_or_be_kept_is_off_by_default() -> None:
    serve = ServeConfig()
    assert serve.host == "127.0.0.1"
    assert (serve.routes, serve.hosted, serve.api_keys_path, serve.aliases) == ({}, None, None, [])
    assert not serve.recordings.texts
    assert isinstance(serve.engine, LlamaCppConfig)


def test_a_file_of_keys_stands_beside_the_configuration_that_names_it(tmp_path: Path) -> None:
    config = load_serve(tmp_path, "api_keys_path: keys.json", "engine: {kind: vllm}")
    assert config.serve.api_keys_path == tmp_path / "keys.json"
    assert config.serve.engine == VllmConfig(kind="vllm")
