"""docs/scaling.md shows what its arithmetic gives, which is right wherever that can be told."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from benchmarks.scaling_arithmetic import (
    ASSUMPTIONS,
    CONFIG,
    PRICES,
    Model,
    all_reliefs,
    card_named,
    halving_share,
    num_cards,
    read_model,
    serve_on,
    shard,
    speed_on,
    step_seconds,
)
from benchmarks.scaling_plan import render_blocks
from configs.load import load_config
from configs.schema import RunConfig
from train.plan.build import Planner
from train.plan.memory import GIB, count_weights
from tunery import app

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
TEXT = PAGE.read_text(encoding="utf-8")
SENTENCES = " ".join(TEXT.split())


@cache
def model() -> Model:
    return read_model()


def test_the_page_shows_every_table_as_it_is_computed() -> None:
    for block in render_blocks(model()):
        assert block in TEXT, block


def test_numbers_in_sentences_are_those_of_the_arithmetic() -> None:
    plan, small = model().plan, serve_on(card_named("RTX 4090"), model())
    large = serve_on(card_named("H100 80GB"), model())
    planner = Planner(architecture=plan.architecture, device="cuda", budget=24 * GIB)
    relieved = planner.memory(all_reliefs(plan), 131_072).peak / GIB
    weights = count_weights(plan.architecture, plan.config.train).nf4 / GIB
    a_step = plan.config.model.max_length / speed_on(model(), "RTX 4090").estimate
    replicas = num_cards(large, ASSUMPTIONS.requests_per_second)
    for told in (
        f"peaks at {plan.memory.peak / GIB:.1f} of 24 GiB",
        f"gradients, {model().adapter / 1e6:.0f} MB",
        f"only {weights:.1f} GiB",
        f"goes to {planner.longest(all_reliefs(plan)):,} tokens",
        f"131,072 tokens need {relieved:.1f} GiB",
        f"not fit (`train.quantization: none`, {plan.disk['download']:.1f} GiB)",
        f"8,192 tokens, {a_step:.1f} s",
        f"{model().w4a16 / 1e9:.1f} GB = {1 / alone('RTX 4090'):.0f} tokens/s on an RTX 4090",
        f"8 resident on each card ({8 * model().adapter / 1e9:.1f} GB",
        f"{replicas} of them at once are {replicas * model().w4a16 / 1e12:.0f} TB",
    ):
        assert told in SENTENCES, told
    assert small.prefill_s * small.requests == pytest.approx(0.75, abs=0.01)


def alone(card: str) -> float:
    return step_seconds(card_named(card), model(), ASSUMPTIONS, at_once=1)


def test_assumptions_are_told() -> None:
    given = ASSUMPTIONS
    for told in (
        f"{given.prompt_tokens} tokens of prompt, of which {given.cached_tokens}",
        f"{given.answer_tokens} of answer",
        f"{given.bandwidth} x bandwidth",
        f"{given.compute} x FLOP/s",
        f"{given.memory} of the card's memory is the engine's, {given.engine_gib} GiB",
        f"at most {given.most_at_once} sequences",
        f"${given.storage_price} a GB",
        f"{given.interface_ms} ms of its own code",
    ):
        assert told in SENTENCES, told


def test_a_card_with_an_empty_batch_is_bound_by_bandwidth_and_a_full_one_by_arithmetic() -> None:
    slow = replace(ASSUMPTIONS, bandwidth=ASSUMPTIONS.bandwidth / 2)
    for name in ("RTX 4090", "H100 80GB"):
        card, most = card_named(name), serve_on(card_named(name), model()).at_once
        single = step_seconds(card, model(), slow, at_once=1)
        assert single == pytest.approx(2 * alone(name))
        weak = replace(ASSUMPTIONS, compute=ASSUMPTIONS.compute / 2)
        full = step_seconds(card, model(), ASSUMPTIONS, at_once=most)
        assert step_seconds(card, model(), weak, at_once=most) == pytest.approx(2 * full)


def test_the_batch_fills_the_memory_and_no_more() -> None:
    for name in PRICES:
        card, one = card_named(name), serve_on(card_named(name), model())
        tokens = one.at_once * 400
        held = model().w4a16 + tokens * 163_840 + ASSUMPTIONS.engine_gib * GIB
        assert held <= card.memory_gib * GIB * ASSUMPTIONS.memory
        if one.at_once < ASSUMPTIONS.most_at_once:
            assert held + 400 * 163_840 > card.memory_gib * GIB * ASSUMPTIONS.memory


def test_sharding_frees_less_than_the_weights_and_never_reaches_the_longest() -> None:
    weights = count_weights(model().plan.architecture, model().plan.config.train).nf4
    freed = [shard(model(), count) for count in (1, 2, 8)]
    assert freed[0].freed == 0
    assert freed[0].gathered == 0
    assert 0 < freed[1].freed < freed[2].freed < weights
    assert freed[2].longest < freed[0].longest_with_reliefs
    assert freed[2].longest_with_reliefs < 131_072


def test_halving_counts_each_rung_once() -> None:
    assert halving_share(1) == 1
    assert halving_share(9) == pytest.approx(1 + 3 * (1 / 3 - 1 / 9) + (1 - 1 / 3))


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in link]
    assert links
    for link in links:
        assert (PAGE.parent / link).exists(), link


@pytest.mark.parametrize("called", sorted(set(re.findall(r"`tunery ([^`]+)`", TEXT))))
def test_commands_named_on_the_page_exist(called: str) -> None:
    name, *arguments = called.split()
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    command = root.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {one for one in arguments if one.startswith("--")} <= options


def test_sharding_takes_the_reliefs_but_for_the_embedding_as_the_page_says() -> None:
    config = load_config(CONFIG).model_dump()
    sharded = {"hardware": {"devices": 2, "strategy": "fsdp"}}
    config["train"] |= {"offload_activations": True, "mlp_tile_tokens": 512}
    RunConfig.model_validate({**config, **sharded})
    config["train"]["offload_embedding"] = True
    with pytest.raises(ValidationError, match="leave offload_embedding out"):
        RunConfig.model_validate({**config, **sharded})
