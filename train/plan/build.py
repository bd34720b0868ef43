"""The plan of a run: memory, longest sequence, speed, time and disk, before anything is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from configs.schema import RunConfig, TrainConfig
from train.plan.advice import Device, Relief, reliefs, sacrifices
from train.plan.architecture import Architecture
from train.plan.config_source import find_architecture
from train.plan.data_facts import DataFacts
from train.plan.disk import plan_disk
from train.plan.memory import GIB, Memory, batch_of, plan_memory
from train.plan.speed import CARDS, Speed, estimate_speed
from train.plan.step import Step

# Lengths are told to this many tokens.
LENGTH_STEP = 64


@dataclass(frozen=True)
class Planner:
    """A model on a device, for which trainings are tried out on paper.

    budget: bytes; supervised_share: of the tokens; with_vision: whether rows hold images, for which
    the vision tower is loaded.
    """

    architecture: Architecture
    device: Device
    budget: float
    supervised_share: float = 1.0
    with_vision: bool = False

    def step(self, train: TrainConfig, max_length: int) -> Step:
        """The largest training step that can come."""
        batch = batch_of(
            train,
            max_length=max_length,
            device=self.device,
            supervised_share=self.supervised_share,
        )
        return Step(self.architecture, train, batch, self.device)

    def memory(self, train: TrainConfig, max_length: int) -> Memory:
        """Its memory."""
        return plan_memory(self.step(train, max_length), with_vision=self.with_vision)

    def fits(self, train: TrainConfig, max_length: int) -> bool:
        """Whether it fits into the budget."""
        return self.memory(train, max_length).peak <= self.budget

    def longest(self, train: TrainConfig) -> int:
        """The longest sequence that fits alone, up to the model's own limit; 0 if none does."""
        alone = TrainConfig.model_validate({**train.model_dump(), "micro_batch_rows": 1})
        lower, upper = 0, -(-self.architecture.max_positions // LENGTH_STEP)
        while lower < upper:
            middle = (lower + upper + 1) // 2
            if self.fits(alone, min(LENGTH_STEP * middle, self.architecture.max_positions)):
                lower = middle
            else:
                upper = middle - 1
        return min(LENGTH_STEP * lower, self.architecture.max_positions)

    def most_rows(self, train: TrainConfig, max_length: int) -> int:
        """The largest divisor of `batch_rows` that fits as `micro_batch_rows`; 0 if none does."""
        for rows in range(train.batch_rows, 0, -1):
            if train.batch_rows % rows == 0:
                tried = TrainConfig.model_validate({**train.model_dump(), "micro_batch_rows": rows})
                if self.fits(tried, max_length):
                    return rows
        return 0


class Change(NamedTuple):
    """A change to the configuration, on top of those before it, and GiB that it saves.

    keeps_result: whether what is learned stays the same, up to rounding.
    """

    told: str
    saves: float
    peak: float
    fits: bool
    keeps_result: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes are in GiB; hours and tokens are None where they are not known yet, for `unknown`.

    max_length, most_rows: the longest sequence and the largest micro-batch that fit with all else
    as it is; max_length_relieved: with every change that keeps the result. notes: what the plan
    takes for granted.
    """

    name: str
    model: str
    source: str
    device: Device
    budget: float
    architecture: Architecture
    config: RunConfig
    memory: Memory
    fits: bool
    max_length: int
    max_length_relieved: int
    most_rows: int
    num_tokens: float | None
    unknown: str
    speeds: list[Speed]
    disk: dict[str, float]
    changes: list[Change]
    notes: list[str]

    def hours(self, speed: Speed) -> float | None:
        """Time for all training tokens."""
        return None if self.num_tokens is None else self.num_tokens / speed.estimate / 3600

    def runs_on(self, speed: Speed) -> bool:
        """Whether the training as configured fits the card."""
        return self.device == "cuda" and self.memory.peak <= speed.card.memory_gib * GIB


def build_plan(
    config: RunConfig,
    *,
    budget_gib: float,
    device: Device = "cuda",
    data: DataFacts | None = None,
    has_images: bool = False,
) -> Plan:
    """The plan for a device with `budget_gib` of memory.

    data: what is known of the rows; without it all tokens are taken to be supervised, the worst.
    has_images: whether rows hold images. Errors: those of `find_architecture`.
    """
    found = find_architecture(config.model)
    planner = Planner(
        architecture=found.architecture,
        device=device,
        budget=budget_gib * GIB,
        supervised_share=data.supervised_share if data else 1.0,
        with_vision=has_images,
    )
    train, max_length = config.train, config.model.max_length
    memory = planner.memory(train, max_length)
    relieved = _all_reliefs(planner, train, max_length)
    # The cards' speeds, whatever the plan is for.
    step = Step(found.architecture, train, planner.step(train, max_length).batch, "cuda")
    num_tokens, unknown = count_tokens(config, data)
    return Plan(
        name=config.name,
        model=config.model.name,
        source=found.told,
        device=device,
        budget=budget_gib,
        architecture=found.architecture,
        config=config,
        memory=memory,
        fits=memory.peak <= planner.budget,
        max_length=planner.longest(train),
        max_length_relieved=planner.longest(relieved[-1].config if relieved else train),
        most_rows=planner.most_rows(train, max_length),
        num_tokens=num_tokens,
        unknown=unknown,
        speeds=[estimate_speed(step, card) for card in CARDS],
        disk=plan_disk(config, step),
        changes=list(_changes(planner, config, relieved)),
        notes=list(_notes(planner, config, data)),
    )


def count_tokens(config: RunConfig, data: DataFacts | None) -> tuple[float | None, str]:
    """Tokens of all training steps; None, and why, where that depends on rows not prepared yet."""
    train, max_length = config.train, config.model.max_length
    if train.num_steps is not None:
        rows = train.num_steps * train.batch_rows
        if data is not None:
            units = data.num_sequences if train.packing else data.num_rows
            return rows * data.num_tokens / max(units, 1), ""
        if train.packing:
            return rows * max_length, ""
    elif data is not None:
        assert train.num_epochs is not None
        return train.num_epochs * data.num_tokens, ""
    return None, "known after `tunery prepare`"


def _notes(planner: Planner, config: RunConfig, data: DataFacts | None) -> Iterator[str]:
    """What the plan takes for granted."""
    rows = "sequences" if config.train.packing else "rows"
    yield f"all {rows} are taken to be {config.model.max_length:,} tokens long, the worst case"
    if data is None:
        yield "all tokens are taken to be supervised, until `tunery prepare` has counted them"
    if config.train.method == "preference":
        yield "each row counts twice: its chosen and its rejected answer go through together"
    if planner.architecture.num_vision_weights and not planner.with_vision:
        yield "rows are taken to be text, for which the vision tower is not loaded"
    if config.train.optimizer == "paged_adamw_8bit" and planner.device == "cuda":
        yield "paged optimizer states are counted as host memory, where they go when room is short"


def _all_reliefs(planner: Planner, train: TrainConfig, max_length: int) -> list[Relief]:
    return list(
        reliefs(
            train,
            device=planner.device,
            tied_embeddings=planner.architecture.is_tied,
            tokens_per_micro_batch=planner.step(train, max_length).batch.num_tokens,
        )
    )


def _changes(planner: Planner, config: RunConfig, relieved: list[Relief]) -> Iterator[Change]:
    """What to change, cheapest first: what keeps the result, then what does not."""
    train, max_length = config.train, config.model.max_length
    before = planner.memory(train, max_length).peak
    for relief in relieved:
        change = _change(planner, relief, max_length, before, keeps_result=True)
        yield change
        train, before = relief.config, change.peak * GIB
    for relief in sacrifices(train, device=planner.device):
        change = _change(planner, relief, max_length, before, keeps_result=False)
        yield change
        train, before = relief.config, change.peak * GIB
    shorter = planner.longest(train)
    if 0 < shorter < max_length:
        relief = Relief(f"model.max_length: {shorter}", train)
        yield _change(planner, relief, shorter, before, keeps_result=False)


def _change(
    planner: Planner, relief: Relief, max_length: int, before: float, *, keeps_result: bool
) -> Change:
    peak = planner.memory(relief.config, max_length).peak
    return Change(
        told=relief.told,
        saves=(before - peak) / GIB,
        peak=peak / GIB,
        fits=peak <= planner.budget,
        keeps_result=keeps_result,
    )
