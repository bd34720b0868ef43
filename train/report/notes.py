"""What a reader of the training report should look at first: the log, weighed, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from configs.schema import TrainConfig
from data.training_log import History, Point, series
from train.report.history import num_seconds, resumed_after

# From these shares on a note asks for a look.
RISE_AFTER_THE_LOWEST = 0.02
FALL_AT_THE_END = 0.01
MANY_CLIPPED = 0.5


class Note(NamedTuple):
    """A sentence about the training."""

    level: Literal["fine", "look", "wrong"]
    text: str


def build_notes(facts: Mapping[str, Any], history: History, *, settings: TrainConfig) -> list[Note]:
    """What is wrong first, then what is worth a look."""
    notes = [
        *_end(facts, history),
        *_validation(facts, series(history, "eval_loss"), settings),
        *_clipping(series(history, "grad_norm"), settings),
        *_breaks(facts, history),
    ]
    return sorted(notes, key=lambda note: ("wrong", "look", "fine").index(note.level))


def lowest(points: Sequence[Point]) -> Point | None:
    """The first of the lowest points; None where there is none."""
    return min(points, key=lambda point: point.value, default=None)


def stopped_early(validation: Sequence[Point], settings: TrainConfig) -> bool:
    """Whether the last validations were as many without a lower loss as patience allows."""
    best = lowest(validation)
    if best is None or settings.early_stopping_patience is None:
        return False
    num_since = len(validation) - 1 - list(validation).index(best)
    return num_since >= settings.early_stopping_patience


def _end(facts: Mapping[str, Any], history: History) -> Iterator[Note]:
    losses = series(history, "loss")
    if "error" in facts:
        yield Note("wrong", f"Training did not end: {facts['error']}")
    elif losses:
        yield Note(
            "fine",
            f"Trained to step {losses[-1].step:,} in {format_seconds(num_seconds(history))}.",
        )


def _validation(
    facts: Mapping[str, Any], validation: Sequence[Point], settings: TrainConfig
) -> Iterator[Note]:
    best = lowest(validation)
    if best is None:
        if "error" not in facts:
            yield Note("look", "There is no validation loss: whether it overfits is not known.")
        return
    last = validation[-1]
    told = f"The validation loss is lowest after step {best.step:,} ({best.value:.4g})"
    if settings.early_stopping_patience is not None:
        ending = ", and training ended early" if stopped_early(validation, settings) else ""
        yield Note("fine", f"{told}; the adapter is the one of that step{ending}.")
    elif last.value > best.value * (1 + RISE_AFTER_THE_LOWEST):
        yield Note(
            "look",
            f"{told} and then rises to {last.value:.4g}: fewer steps or "
            "train.early_stopping_patience would keep the better adapter.",
        )
    elif len(validation) == 1:
        yield Note("fine", f"{told}, the only one it was taken after.")
    elif last.value < validation[-2].value * (1 - FALL_AT_THE_END):
        yield Note("look", f"{told} and still falls at the end: more steps may lower it further.")
    else:
        yield Note("fine", f"{told} and hardly moves at the end.")


def _clipping(norms: Sequence[Point], settings: TrainConfig) -> Iterator[Note]:
    if not norms:
        return
    num_clipped = sum(point.value > settings.max_grad_norm for point in norms)
    share = num_clipped / len(norms)
    text = (
        f"{num_clipped:,} of {len(norms):,} steps had a gradient norm above train.max_grad_norm "
        f"({settings.max_grad_norm:g}) and were scaled down."
    )
    yield Note("look" if share > MANY_CLIPPED else "fine", text)


def _breaks(facts: Mapping[str, Any], history: History) -> Iterator[Note]:
    steps = resumed_after(history)
    if steps:
        times = "once" if len(steps) == 1 else f"{len(steps)} times"
        after = ", ".join(f"{step:,}" for step in steps)
        yield Note("fine", f"Training was broken off and resumed {times}, after step {after}.")
    for relief in facts.get("memory_reliefs", []):
        yield Note("look", f"Memory ran out; training went on with {relief}.")


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units, for instance "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
