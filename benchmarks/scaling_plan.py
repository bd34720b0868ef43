"""The tables of docs/scaling.md: steps, and 100 variants at 10,000 requests/s, on paper.

    python -m benchmarks.scaling_plan

Each is printed as it stands on the page, which a test holds to it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.scaling_arithmetic import (
    ASSUMPTIONS,
    HOURS_A_MONTH,
    LINKS,
    NUM_CARDS,
    PRICES,
    Model,
    card_named,
    halving_share,
    num_cards,
    read_model,
    reduced_seconds,
    serve_on,
    shard,
    speed_on,
    step_seconds,
)
from train.plan.memory import GIB

BATCHES = (1, 8, 32)
RATES = (10, 100, 1_000, 10_000)
PCIE = "PCIe 4.0 x16"
# In which the bill at the end is made out.
BILLED = ("RTX 4090", "H100 80GB")
GIVEN = ASSUMPTIONS


def main() -> None:
    """Print all tables."""
    for block in render_blocks(read_model()):
        print(block, end="\n\n")


def render_blocks(model: Model) -> Iterator[str]:
    """What docs/scaling.md shows, in its order."""
    yield render_training(model)
    yield render_data_parallel(model)
    yield render_sharded(model)
    yield render_sweep(model)
    yield render_constants(model)
    yield render_decoding(model)
    yield render_serving(model)
    yield render_levers(model)
    yield render_variants(model)
    yield render_storage(model)
    yield render_interface()
    yield render_bill(model)


def render_training(model: Model) -> str:
    """One variant and all, by card."""
    rows = []
    for name, price in PRICES.items():
        speed = speed_on(model, name)
        hours = GIVEN.tokens_a_variant / speed.estimate / 3600
        total = hours * GIVEN.num_variants
        cells = (f"{speed.estimate:,.0f}", f"{hours:.1f}", f"{total:,.0f}", f"{price * total:,.0f}")
        rows.append((name, *cells))
    heads = ("card", "tokens/s", "hours a variant", f"card-hours, {GIVEN.num_variants}", "dollars")
    return _table(heads, rows)


def render_data_parallel(model: Model) -> str:
    """What summing the gradients costs, at one micro-batch of 8,192 tokens a card and step."""
    computed = model.plan.config.model.max_length / speed_on(model, "RTX 4090").estimate
    rows = []
    for count in NUM_CARDS[1:]:
        cells = []
        for link in LINKS.values():
            summed = reduced_seconds(model, count, link)
            cells.append(f"{summed:.2f} s, {computed / (computed + summed):.3f}")
        rows.append((str(count), *cells))
    return _table(("cards", *LINKS), rows)


def render_sharded(model: Model) -> str:
    """What FSDP2 frees, and what it moves."""
    rows = []
    for one in (shard(model, count) for count in NUM_CARDS):
        moved = [f"{one.gathered / link / 1e9:.1f}" for link in (LINKS[PCIE], LINKS["10 GbE"])]
        lengths = (f"{one.longest:,}", f"{one.longest_with_reliefs:,}")
        rows.append((str(one.num_cards), f"{one.freed / GIB:.1f}", *lengths, *moved))
    heads = ("cards", "GiB freed on each", "longest, checkpoints alone", "with all reliefs")
    return _table((*heads, f"s gathering, {PCIE}", "s, 10 GbE"), rows)


def render_sweep(model: Model) -> str:
    """Trainings that a search costs."""
    hours = GIVEN.tokens_a_variant / speed_on(model, "RTX 4090").estimate / 3600
    rows = []
    for trials in (9, 27):
        halved = halving_share(trials)
        spent = (f"{trials * hours:.0f}", f"{halved:.2f}", f"{halved * hours:.0f}")
        rows.append((str(trials), str(trials), *spent))
    heads = ("trials", "trainings, all to the end", "card-hours", "trainings, halving by 3")
    return _table((*heads, "card-hours"), rows)


def render_constants(model: Model) -> str:
    """What a request costs in bytes and operations, with the arithmetic."""
    shape = model.plan.architecture
    weights = shape.num_linear_weights + shape.num_embedding_weights
    context = GIVEN.prompt_tokens + GIVEN.answer_tokens
    lines = (
        f"cache a token   2 x {shape.num_layers} layers x {shape.key_value} x 2 B"
        f" = {model.bytes_a_token:,} B",
        f"cache a request {context} tokens x {model.bytes_a_token:,} B"
        f" = {context * model.bytes_a_token / 1e6:.0f} MB",
        f"weights, W4A16  {model.w4a16 / 1e9:.1f} GB",
        f"adapter, bf16   {shape.num_lora_weights(32):,} x 2 B = {model.adapter / 1e6:.0f} MB",
        f"work a token    2 x {weights / 1e9:.1f} x 10^9 = {model.operations / 1e9:.1f} GFLOP,"
        f" and {model.operations_of_context / 1e6:.2f} MFLOP a token of context",
    )
    return "\n".join(("```", *lines, "```"))


def render_decoding(model: Model) -> str:
    """Tokens a second by sequences at once."""
    rows = []
    for name in PRICES:
        most = serve_on(card_named(name), model).at_once
        cells = []
        for at_once in (*BATCHES, most):
            step = step_seconds(card_named(name), model, GIVEN, at_once=at_once)
            cells.append(f"{at_once / step:,.0f}")
        rows.append((name, *cells, str(most)))
    return _table(("card", *map(str, BATCHES), "most", "how many that is"), rows)


def render_serving(model: Model) -> str:
    """Requests a second of a card, and cards for all of them."""
    rows = []
    for name, price in PRICES.items():
        one = serve_on(card_named(name), model)
        cards = num_cards(one, GIVEN.requests_per_second)
        million = price * 1e6 / 3600 / (one.requests * GIVEN.busy)
        times = (f"{1000 * one.prefill_s:.0f}", f"{1000 * one.decode_s:.0f}")
        money = (f"{price * HOURS_A_MONTH * cards:,.0f}", f"{million:.0f}")
        rows.append((name, *times, f"{one.requests:.1f}", f"{cards:,}", *money))
    heads = ("card", "ms prompt", "ms answer", "requests/s", "cards", "dollars a month")
    return _table((*heads, "dollars a million"), rows)


def render_levers(model: Model) -> str:
    """Cards for all requests when one assumption changes."""
    changed = {
        "as assumed": {},
        "no prefix cached": {"cached_tokens": 0},
        "500 of 600 prompt tokens cached": {"cached_tokens": 500},
        "answers of 8 tokens instead of 100": {"answer_tokens": 8},
        "answers of 400": {"answer_tokens": 400},
    }
    rows = []
    for told, change in changed.items():
        given = replace(GIVEN, **change)
        cards = [serve_on(card_named(name), model, given) for name in BILLED]
        needed = [f"{num_cards(one, given.requests_per_second, given):,}" for one in cards]
        rows.append((told, *needed))
    return _table(("", *BILLED), rows)


def render_variants(model: Model) -> str:
    """Cards by traffic: a card of its own for each variant, or variants that share a base."""
    card = card_named("RTX 4090")
    merged = serve_on(card, model)
    shared = serve_on(card, model, num_adapters=GIVEN.adapters_per_card)
    rows = []
    for rate in RATES:
        alone = GIVEN.num_variants * num_cards(merged, rate / GIVEN.num_variants)
        together = max(
            math.ceil(GIVEN.num_variants / GIVEN.adapters_per_card), num_cards(shared, rate)
        )
        rows.append((f"{rate:,}", f"{alone:,}", f"{together:,}"))
    heads = ("requests/s of all", "merged, each on its own", f"{GIVEN.adapters_per_card} on a base")
    return _table(heads, rows)


def render_storage(model: Model) -> str:
    """What is kept and moved."""
    disk, price = model.plan.disk, GIVEN.storage_price
    kept = sum(disk[name] for name in ("checkpoints", "adapter", "artefacts")) * GIB
    sizes = {
        "adapter": model.adapter,
        "W4A16, merged": model.w4a16,
        "bf16, merged": disk["merged"] * GIB,
        "run directory, rows left out": kept,
    }
    rows = []
    for name, size in sizes.items():
        all_of_them = size * GIVEN.num_variants / 1e9
        seconds = size / 1e9 / LINKS["10 GbE"]
        cells = (f"{size / 1e9:.1f}", f"{all_of_them:,.0f}", f"{price * all_of_them:,.0f}")
        rows.append((name, *cells, f"{seconds:.1f}"))
    heads = ("what", "GB", f"GB, {GIVEN.num_variants}", "dollars a month", "s to a host, 10 GbE")
    return _table(heads, rows)


def render_interface() -> str:
    """Processes of the interface, before the words of streams are counted."""
    cores = GIVEN.requests_per_second * GIVEN.interface_ms / 1000
    processes = math.ceil(cores / GIVEN.busy)
    return "\n".join(
        (
            "```",
            f"{GIVEN.requests_per_second:,.0f} requests/s x {GIVEN.interface_ms} ms"
            f" = {cores:.1f} cores; at {GIVEN.busy:.0%} busy {processes} processes",
            "```",
        )
    )


def render_bill(model: Model) -> str:
    """Everything once trained and for a month."""
    stored = sum(model.plan.disk[name] for name in ("checkpoints", "adapter", "artefacts")) * GIB
    storage = GIVEN.storage_price * stored * GIVEN.num_variants / 1e9
    rows = []
    for name in BILLED:
        price = PRICES[name]
        hours = GIVEN.tokens_a_variant / speed_on(model, name).estimate / 3600
        training = price * hours * GIVEN.num_variants * halving_share(GIVEN.num_trials)
        cards = num_cards(serve_on(card_named(name), model), GIVEN.requests_per_second)
        month = price * HOURS_A_MONTH * cards
        rows.append((name, f"{training:,.0f}", f"{month:,.0f}", f"{storage:,.0f}"))
    heads = ("all on", f"training, once, {GIVEN.num_trials} trials each", "serving a month")
    return _table((*heads, "storage a month"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join((lines[0], "|" + "---|" * len(heads), *lines[1:]))


if __name__ == "__main__":
    main()
