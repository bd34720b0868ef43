"""Which engines there are for what settings, and whom each model name leads to."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.serve_schema import ServeConfig
from serve.access.commands import add_key
from serve.assemble import build_service
from serve.backend import Backend
from serve.engine import Overloaded
from serve.engines.llamacpp import LlamaCppEngine
from serve.engines.upstream import UpstreamEngine
from serve.engines.vllm import VllmEngine
from serve.process import start_interface
from serve.recordings import Recorder
from serve.service import Service
from serve.settings import ServedVariant, ServerSettings
from tests.serve.conftest import MODEL, START_TIMEOUT_S, one_model
from tests.serve.scripted import QUESTION, text_of

HOSTED = {"base_url": "http://127.0.0.1:9/v1", "model": "mistral-small-2503", "max_requests": 7}
SHARED = [ServedVariant(name=name, adapter=Path(f"{name}.lora.gguf")) for name in ("a", "b")]
Build = Callable[..., Service]


@pytest.fixture
def build() -> Iterator[Build]:
    """Builds the service of one merged variant `a` and its base, of files that nobody opens."""
    built: list[Service] = []

    def build_one(fields: dict[str, Any] | None = None, **serve: object) -> Service:
        given: dict[str, Any] = {
            "variants": [ServedVariant(name="a", artefact=Path("a.gguf"))],
            "base": Path("base.gguf"),
            "base_name": "owner/base",
        }
        config = ServeConfig.model_validate({"num_threads": 1} | serve)
        settings = ServerSettings(**given | (fields or {}), serve=config)
        built.append(build_service(settings))
        return built[-1]

    yield build_one
    for service in built:
        asyncio.run(service.close())


def backend(service: Service, name: str, client: str = "someone") -> Backend:
    """Who answers this client under a model name."""
    route = service.model(name).route
    found = route.backends[route.choose(client)]
    assert isinstance(found, Backend)
    return found


def leads_to(service: Service) -> dict[str, str]:
    """Each model name, and the engine's own name of who answers there."""
    return {name: backend(service, name).model_name for name in service.models}


# One variant.


def test_a_variant_alone_is_one_engine_and_one_name(build: Build) -> None:
    service = build()
    assert leads_to(service) == {"a": "a"}
    [engine] = service.engines
    assert isinstance(engine, LlamaCppEngine)
    assert backend(service, "a").engine is engine
    assert [model.name for model in engine.models] == ["a"]
    assert not service.hosts
    assert (service.models["a"].to, service.models["a"].source_model) == ("variant", "owner/base")
    assert service.recorder is None
    assert not service.keys.asks_for_keys


def test_aliases_are_further_names_of_the_same_engine_and_line(build: Build) -> None:
    service = build(aliases=["mistral-small-2503", "owner/a"])
    assert leads_to(service) == {"a": "a", "mistral-small-2503": "a", "owner/a": "a"}
    assert len(service.engines) == 1
    assert len({id(backend(service, name).line) for name in service.models}) == 1
    told = [model.aliases for model in service.models.values()]
    assert told == [("mistral-small-2503", "owner/a"), (), ()]


def test_routes_lead_where_they_say_and_each_file_is_one_engine(build: Build) -> None:
    service = build(
        routes={
            "plain": {},
            "untuned": {"to": "base"},
            "elsewhere": {"to": "hosted"},
            "safe": {"fallback": "base"},
            "both": {"to": "base", "fallback": "hosted"},
        },
        hosted=HOSTED,
    )
    assert leads_to(service) == {
        "a": "a",
        "plain": "a",
        "untuned": "owner/base",
        "elsewhere": "mistral-small-2503",
        "safe": "a",
        "both": "owner/base",
    }
    variant, untuned = service.engines
    [host] = service.hosts
    assert isinstance(host, UpstreamEngine)
    assert [model.name for model in untuned.models] == ["owner/base"]
    engines = {name: backend(service, name).engine for name in service.models}
    assert engines["a"] is engines["plain"] is engines["safe"] is variant
    assert engines["untuned"] is engines["both"] is untuned
    assert engines["elsewhere"] is host
    safe, both = service.model("safe").route, service.model("both").route
    fallbacks = [safe.fallback_of("variant"), both.fallback_of("base")]
    assert [one and one.label for one in fallbacks] == ["owner/base", "hosted/mistral-small-2503"]
    assert host.capacity == 7


def test_a_split_divides_the_clients_between_the_engines(build: Build) -> None:
    service = build(routes={"m": {"split": {"base": 50.0}}})
    answering = {backend(service, "m", f"client-{n}").model_name for n in range(50)}
    assert answering == {"a", "owner/base"}
    assert all(backend(service, "a", f"client-{n}").model_name == "a" for n in range(50))


def test_a_route_under_the_variants_own_name_replaces_its_own(build: Build) -> None:
    service = build(routes={"a": {"to": "base"}}, aliases=["b"])
    assert leads_to(service) == {"a": "owner/base", "b": "a"}
    assert service.models["a"].source_model is None


def test_what_no_route_leads_to_is_not_there(build: Build) -> None:
    service = build(hosted=HOSTED | {"api_key_env": "NO_SUCH_KEY"})
    assert [model.name for engine in service.engines for model in engine.models] == ["a"]
    assert not service.hosts


def test_names_of_an_engine_share_its_line_and_engines_have_one_each(build: Build) -> None:
    service = build(routes={"m": {"to": "base"}, "n": {"to": "hosted"}}, hosted=HOSTED, num_slots=3)
    assert len({id(backend(service, name).line) for name in ("a", "m", "n")}) == 3
    assert backend(service, "a").engine.capacity == 3


def test_the_line_is_as_long_as_the_configuration_says(build: Build) -> None:
    line = backend(build(num_slots=2, max_waiting=0), "a").line

    async def fill() -> int:
        async with asyncio.timeout(5), AsyncExitStack() as places:
            for num_let_in in range(9):
                try:
                    await places.enter_async_context(line.place())
                except Overloaded:
                    return num_let_in
        return 9

    assert asyncio.run(fill()) == 2


# Several variants.


def test_several_variants_are_one_engine_with_the_base_under_its_own_name(build: Build) -> None:
    service = build({"variants": SHARED}, aliases=["alias"])
    assert leads_to(service) == {"a": "a", "b": "b", "owner/base": "owner/base", "alias": "a"}
    [engine] = service.engines
    assert [model.name for model in engine.models] == ["owner/base", "a", "b"]
    assert all(backend(service, name).engine is engine for name in service.models)
    assert [model.to for model in service.models.values()] == [
        "variant",
        "variant",
        "base",
        "variant",
    ]
    sources = {name: model.source_model for name, model in service.models.items()}
    assert sources["a"] == sources["b"] == "owner/base"
    assert sources["owner/base"] is None
    assert [name for name, model in service.models.items() if model.aliases] == ["a"]


def test_a_route_under_a_variants_name_is_that_variants_and_others_the_first_ones(
    build: Build,
) -> None:
    routes = {"b": {"split": {"base": 50.0}}, "c": {}, "d": {"to": "base"}}
    service = build({"variants": SHARED}, routes=routes)
    assert {backend(service, "b", f"client-{n}").model_name for n in range(50)} == {
        "b",
        "owner/base",
    }
    told = leads_to(service)
    assert (told["a"], told["c"], told["d"]) == ("a", "a", "owner/base")
    assert len(service.engines) == 1


def test_vllm_is_given_the_same_names(build: Build) -> None:
    service = build({"variants": SHARED}, engine={"kind": "vllm"})
    [engine] = service.engines
    assert isinstance(engine, VllmEngine)
    assert [model.name for model in engine.models] == ["owner/base", "a", "b"]


# What is lacking.


def test_a_route_to_a_base_that_was_not_made_is_told(build: Build) -> None:
    with pytest.raises(UserError) as error:
        build({"base": None, "base_name": None}, routes={"m": {"fallback": "base"}})
    assert error.value.what == "a route leads to the base, of which this run made no artefact"
    assert error.value.where == "serve.routes"
    assert error.value.remedy == "set evaluation.baseline to {kind: base} and merge again"


def test_a_shadow_without_a_place_for_its_records_is_told(build: Build) -> None:
    with pytest.raises(UserError) as error:
        build(routes={"m": {"shadow": "base"}})
    assert error.value.what == "a route has a shadow, but there is nowhere to record it"
    assert error.value.where == "folder"
    assert error.value.remedy == "give the server's settings a `folder`"


def test_a_key_of_the_host_that_is_not_set_is_told(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError) as error:
        build(routes={"m": {"to": "hosted"}}, hosted=HOSTED | {"api_key_env": "NO_SUCH_KEY"})
    assert error.value.what == "the environment variable NO_SUCH_KEY is not set"


def test_a_file_of_keys_that_is_not_there_is_told(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        build(api_keys_path=tmp_path / "keys.json")
    assert error.value.where == str(tmp_path / "keys.json")
    assert "tunery keys add" in str(error.value.remedy)


# What clients and operators see of it.


def test_a_shadow_has_a_recorder_and_only_its_route_is_shadowed(
    build: Build, tmp_path: Path
) -> None:
    service = build({"folder": tmp_path}, routes={"m": {"shadow": "base"}, "n": {}})
    assert isinstance(service.recorder, Recorder)
    shadows = {name: model.route.shadow for name, model in service.models.items()}
    assert [name for name, shadow in shadows.items() if shadow] == ["m"]
    assert len(service.engines) == 2


def test_records_of_a_shadow_that_is_off_again_still_expire(build: Build, tmp_path: Path) -> None:
    records = tmp_path / "recordings"
    records.mkdir()
    (records / "2020-01-01.jsonl").write_text("{}\n")
    (records / "2999-01-01.jsonl").write_text("{}\n")
    assert build({"folder": tmp_path}).recorder is None
    assert [file.name for file in records.iterdir()] == ["2999-01-01.jsonl"]


def test_limits_and_keys_are_the_configurations(build: Build, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "team")
    service = build(max_body_mib=3, keep_alive_s=1.5, api_keys_path=tmp_path / "keys.json")
    assert (service.max_body_bytes, service.keep_alive_s) == (3 * 2**20, 1.5)
    assert service.keys.asks_for_keys


def test_metrics_name_each_engine_and_everyone_who_answers(build: Build) -> None:
    service = build(routes={"m": {"to": "base"}, "n": {"to": "hosted"}}, hosted=HOSTED)
    rendered = service.metrics.render().decode()
    for name in ("a", "owner/base"):
        assert f'tunery:engine_ready{{engine_name="{name}"}} 0.0' in rendered
    for label in ("a", "owner/base", "hosted/mistral-small-2503"):
        series = f'vllm:num_requests_running{{engine="0",model_name="{label}"}} 0.0'
        assert series in rendered


def test_only_the_hosted_model_has_a_price(build: Build) -> None:
    price = {"input_per_million": 0.1, "output_per_million": 0.3}
    routes = {"m": {"to": "base"}, "n": {"to": "hosted"}}
    models = build(routes=routes, hosted=HOSTED | {"price": price}).models
    told = {name: model.to_json(created=0)["pricing"] for name, model in models.items()}
    assert told["n"]["output_cost_per_token"] == pytest.approx(3e-7)
    assert (told["m"], told["a"]) == (None, None)


def test_a_host_is_asked_at_its_address_with_its_model_and_key(
    build: Build, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_KEY", add_key(tmp_path / "keys.json", "us"))
    settings = one_model(tiny_gguf, api_keys_path=tmp_path / "keys.json")
    log = tmp_path / "host.log"
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as host:
        hosted = {
            "base_url": f"{host.url}/v1",
            "model": MODEL,
            "api_key_env": "HOST_KEY",
            "context_length": 500,
        }
        service = build(routes={"m": {"to": "hosted"}}, hosted=hosted)

        async def ask() -> str:
            await service.hosts[0].start()
            route = service.model("m").route
            greedy = replace(QUESTION, temperature=0.0, max_tokens=5)  # drawn, it may be empty
            answering = route.answer(greedy, client="c", request_id="r")
            text = await text_of(answering.events)
            await service.close()
            assert answering.target == f"hosted/{MODEL}"
            return text

        assert asyncio.run(ask())
        assert service.model("m").engine_model.context_length == 500
