"""Which base an adapter is merged into (`merge.base: auto`): the one that it does better on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from configs.schema import BaseName
from train.gates.open_model import open_with_adapters
from train.gates.scoring import HeldOutRow

# Losses that differ by less are as good as equal, and the base that was not rounded is taken.
TIE = 1e-3


class BaseChoice(NamedTuple):
    """The better base, and the held-out loss of the unmerged adapters on each, in nats."""

    base: BaseName
    losses: dict[BaseName, float]


def choose_base(
    checkpoint: Path, adapters: Sequence[tuple[Path, float]], rows: Sequence[HeldOutRow]
) -> BaseChoice:
    """Measure both; adapters and errors: as in `open_with_adapters`."""
    names: tuple[BaseName, ...] = ("bf16", "nf4")
    losses: dict[BaseName, float] = {}
    for name in names:
        with open_with_adapters(checkpoint, adapters, base=name) as scorer:
            losses[name] = scorer.score(rows).loss
    return BaseChoice(better_base(losses), losses)


def better_base(losses: dict[BaseName, float]) -> BaseName:
    """The one with the lower loss; of two that differ by less than 0.1 % the bf16 one."""
    return "nf4" if losses["nf4"] < losses["bf16"] * (1 - TIE) else "bf16"
