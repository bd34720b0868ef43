"""What many variants of the 24B and much traffic take on paper: the arithmetic of docs/scaling.md.

From the assumptions below, the architecture, and the memory and speed of `tunery plan`. Nothing
here is measured. To plan your own, change `ASSUMPTIONS` and `PRICES`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from configs.load import load_config
from configs.schema import TrainConfig
from train.plan.advice import reliefs
from train.plan.build import Plan, Planner, build_plan
from train.plan.memory import GIB, count_weights, num_adapter_bytes
from train.plan.speed import CARDS, Card, Speed
from train.plan.step import BF16, Step

CONFIG = Path("configs", "legal.yaml")
NUM_CARDS = (1, 2, 4, 8)
# 10^9 bytes a second in one direction: PCIe 4.0 x16, 100 and 10 gigabit Ethernet.
LINKS = {"PCIe 4.0 x16": 32.0, "100 GbE": 12.5, "10 GbE": 1.25}
# Forward, forward again (checkpointing) and back: each layer's weights are gathered each time.
GATHERS = 3
# Layers whose weights are whole on a card at a time under FSDP2: one at work, one on its way.
WHOLE_LAYERS = 2
HOURS_A_MONTH = 730


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """All shares are of 1; prices are in dollars.

    cached_tokens: of the prompt, found in the engine's prefix cache (the system prompt). memory:
    of the card, that the engine takes; engine_gib: of that, for all but weights and cache.
    compute, bandwidth: of the card's peak, that is reached. busy: of a card's capacity, that is
    used at the peak. adapters_per_card: resident at a time, where variants share a base.
    interface_ms: of one core, that a request takes in the interface's own code.
    """

    num_variants: int = 100
    requests_per_second: float = 10_000
    prompt_tokens: int = 600
    cached_tokens: int = 300
    answer_tokens: int = 100
    most_at_once: int = 256
    memory: float = 0.9
    engine_gib: float = 1.5
    compute: float = 0.5
    bandwidth: float = 0.7
    busy: float = 0.7
    adapters_per_card: int = 8
    interface_ms: float = 0.95
    tokens_a_variant: float = 10e6
    num_trials: int = 9
    storage_price: float = 0.023


ASSUMPTIONS = Assumptions()
# Dollars an hour. Round numbers of the order that such cards are rented for: put in your own.
PRICES = {"RTX 4090": 0.40, "L4": 0.70, "A100 80GB": 1.60, "H100 80GB": 2.50}


class Model(NamedTuple):
    """The 24B in numbers: bytes of its W4A16 form, of a cached token and of an adapter, and
    floating-point operations of a token with an empty context and for each token of context."""

    plan: Plan
    w4a16: float
    bytes_a_token: int
    adapter: float
    operations: float
    operations_of_context: float


class Serving(NamedTuple):
    """What one card does, busy all the time; at_once: sequences in a decoding step."""

    card: Card
    at_once: int
    step_s: float
    decode_s: float
    prefill_s: float

    @property
    def requests(self) -> float:
        """Requests a second."""
        return 1 / (self.prefill_s + self.decode_s)


class Sharded(NamedTuple):
    """FSDP2 on a number of cards: bytes freed on each, longest sequences, bytes gathered."""

    num_cards: int
    freed: float
    longest: int
    longest_with_reliefs: int
    gathered: float


def read_model() -> Model:
    """Mistral Small 3.1 24B, as its ready-made configuration trains it."""
    plan = build_plan(load_config(CONFIG), budget_gib=24)
    architecture, step = plan.architecture, _step(plan)
    return Model(
        plan=plan,
        # The form has the size of NF4: 4 bits and a scale, and the vision tower in bf16.
        w4a16=plan.disk["nf4_checkpoint"] * GIB,
        bytes_a_token=2 * architecture.num_layers * architecture.key_value * BF16,
        adapter=num_adapter_bytes(step),
        operations=2 * (architecture.num_linear_weights + architecture.num_embedding_weights),
        operations_of_context=4 * architecture.num_layers * architecture.query,
    )


def serve_on(
    card: Card, model: Model, given: Assumptions = ASSUMPTIONS, *, num_adapters: int = 0
) -> Serving:
    """Capacity of a card that decodes in one batch as large as its memory allows.

    A step reads the weights once, and each sequence's cache; it is bound by that or by arithmetic,
    whichever takes longer. num_adapters: kept and read beside the base.
    """
    adapters = num_adapters * model.adapter
    room = (card.memory_gib * given.memory - given.engine_gib) * GIB - model.w4a16 - adapters
    own_tokens = given.prompt_tokens - given.cached_tokens + given.answer_tokens
    at_once = min(given.most_at_once, int(room / model.bytes_a_token / own_tokens))
    step = step_seconds(card, model, given, at_once=at_once, adapters=adapters)
    uncached = given.prompt_tokens - given.cached_tokens
    a_token = model.operations + model.operations_of_context * given.prompt_tokens / 2
    prefill = uncached * a_token / (card.teraflops * 1e12 * given.compute)
    return Serving(card, at_once, step, given.answer_tokens * step / at_once, prefill)


def step_seconds(
    card: Card, model: Model, given: Assumptions, *, at_once: int, adapters: float = 0
) -> float:
    """Seconds of a decoding step, in which each of `at_once` sequences gets a token."""
    context = given.prompt_tokens + given.answer_tokens / 2
    read = model.w4a16 + adapters + at_once * context * model.bytes_a_token
    computed = at_once * (model.operations + model.operations_of_context * context)
    return max(
        read / (card.bandwidth * 1e9 * given.bandwidth),
        computed / (card.teraflops * 1e12 * given.compute),
    )


def num_cards(serving: Serving, requests: float, given: Assumptions = ASSUMPTIONS) -> int:
    """Cards for a rate."""
    return math.ceil(requests / (serving.requests * given.busy))


def shard(model: Model, count: int) -> Sharded:
    """FSDP2: each card keeps its share of the 4-bit weights, and fetches the others' by layer."""
    plan = model.plan
    train, layers = plan.config.train, plan.architecture.num_layers
    weights = count_weights(plan.architecture, train).nf4
    freed = 0.0 if count == 1 else max(0.0, weights * (1 - 1 / count - WHOLE_LAYERS / layers))
    planner = Planner(architecture=plan.architecture, device="cuda", budget=24 * GIB + freed)
    plain = TrainConfig.model_validate({**train.model_dump(), "offload_activations": False})
    gathered = GATHERS * weights * (count - 1) / count
    return Sharded(
        count, freed, planner.longest(plain), planner.longest(all_reliefs(plan)), gathered
    )


def all_reliefs(plan: Plan) -> TrainConfig:
    """The training with every change that keeps its result and saves memory."""
    train = plan.config.train
    tokens = _step(plan).batch.num_tokens
    tied = plan.architecture.is_tied
    found = list(reliefs(train, device="cuda", tied_embeddings=tied, tokens_per_micro_batch=tokens))
    return found[-1].config


def reduced_seconds(model: Model, count: int, link: float) -> float:
    """Seconds in which the adapter's gradients are summed over `count` cards in a ring."""
    return 2 * (count - 1) / count * model.adapter / (link * 1e9)


def speed_on(model: Model, name: str) -> Speed:
    """What `tunery plan` expects of a card in training."""
    return next(speed for speed in model.plan.speeds if speed.card.name == name)


def halving_share(num_trials: int, factor: int = 3) -> float:
    """Training done by successive halving over all trials, in whole trainings.

    Of `num_trials` (a power of `factor`) that start, a `factor`-th goes on at each of the rungs, a
    `factor` apart, of which the last is the whole training.
    """
    done, share, left = 0.0, 1 / num_trials, num_trials
    trained = 0.0
    while left >= 1:
        done += left * (share - trained)
        trained, share, left = share, share * factor, left // factor
    return done


def card_named(name: str) -> Card:
    """One of the cards of `tunery plan`."""
    return next(card for card in CARDS if card.name == name)


def _step(plan: Plan) -> Step:
    planner = Planner(architecture=plan.architecture, device="cuda", budget=0)
    return planner.step(plan.config.train, plan.config.model.max_length)
