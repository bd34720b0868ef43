"""The training report: one page that shows how the training went, for those who set it up."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from markupsafe import Markup

from configs.schema import RunConfig
from data.html import load_page
from data.training_log import History, Point, of_training, series
from train.report.curves import (
    NARROW_INCHES,
    WIDE_INCHES,
    LossCurves,
    draw_losses,
    draw_small,
    needs_logarithm,
)
from train.report.history import num_seconds, resumed_after, speeds, trailing_mean
from train.report.notes import build_notes, format_seconds, lowest, stopped_early

TEMPLATE = Path(__file__).parent / "report.html.jinja"
VERSIONS = ("tunery", "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
MAX_TABLE_ROWS = 60
# The trailing mean is over this part of the steps, and over no fewer than these.
WINDOW_SHARE, MIN_WINDOW = 0.05, 5


class Event(TypedDict):
    """Something that befell the training after an optimizer step, in one sentence."""

    step: int
    text: str


class Card(NamedTuple):
    """A figure at the head of the page; kind: the class that colours it."""

    value: str
    label: str
    note: str
    kind: str = "plain"


def write_report(
    file: Path, *, config: RunConfig, facts: Mapping[str, Any], history: History
) -> None:
    """Write the page as one file without outside parts.

    history: the trainer's `log_history`; facts: those of the train stage, all of which may be
    absent: a training that failed has `error`. `events` may hold what the log does not tell, such
    as where memory ran out, as a list of `Event`; where it was resumed is found in the log.
    """
    history = of_training(history)
    validation = series(history, "eval_loss")
    training = series(history, "loss")
    smoothed = trailing_mean(training, mean_window(len(training)))
    events = find_events(facts, history, config=config)
    curves = LossCurves(
        training=training,
        smoothed=smoothed,
        validation=validation,
        best=lowest(validation),
        events=[event["step"] for event in events],
    )
    html = load_page(TEMPLATE, {"setting": format_setting}).render(
        config=config,
        facts=facts,
        cards=list(_cards(facts, history)),
        notes=build_notes(facts, history, settings=config.train),
        events=events,
        has_losses=bool(training),
        has_validation=bool(validation),
        window=mean_window(len(training)),
        is_logarithmic=needs_logarithm(curves.mean_values),
        # curves.py writes the SVG, out of numbers and fixed words alone.
        loss_figures={
            name: Markup(draw_losses(curves, width_inches=width))
            for name, width in (("wide", WIDE_INCHES), ("narrow", NARROW_INCHES))
        },
        small_figures=list(_small_figures(history, config)),
        table=loss_table(smoothed, validation),
        settings=dict(flatten(config.train.model_dump(mode="json"))),
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )
    file.write_text(html, encoding="utf-8")


def mean_window(num_steps: int) -> int:
    """Steps that the trailing mean is over."""
    return max(MIN_WINDOW, round(WINDOW_SHARE * num_steps))


def find_events(facts: Mapping[str, Any], history: History, *, config: RunConfig) -> list[Event]:
    """What befell the training, by step: told by the stage, and read from the log."""
    events: list[Event] = list(facts.get("events", []))
    events += [
        Event(step=step, text="broken off, and resumed from this step's checkpoint")
        for step in resumed_after(history)
    ]
    losses = series(history, "loss")
    if "error" in facts:
        what = str(facts["error"]).splitlines()[0]
        events.append(Event(step=losses[-1].step if losses else 0, text=f"ended: {what}"))
    elif losses and stopped_early(series(history, "eval_loss"), config.train):
        text = f"ended: {config.train.early_stopping_patience} validations without a lower loss"
        events.append(Event(step=losses[-1].step, text=text))
    return sorted(events, key=lambda event: event["step"])


def loss_table(
    smoothed: Sequence[Point], validation: Sequence[Point]
) -> list[tuple[int, float | None, float | None]]:
    """Step, mean training loss and validation loss, at the validations or spread over the steps."""
    means, losses = dict(smoothed), dict(validation)
    steps = sorted(losses) or sorted(means)
    every = -(-len(steps) // MAX_TABLE_ROWS) or 1
    # Counted from the end, so that the last one is among them.
    chosen = steps[::-1][::every][::-1]
    return [(step, means.get(step), losses.get(step)) for step in chosen]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by their dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def format_setting(value: object) -> str:
    """A value of the configuration in the words of its YAML."""
    match value:
        case None:
            return "–"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(format_setting(one) for one in value) or "none"
        case _:
            return str(value)


def _cards(facts: Mapping[str, Any], history: History) -> Iterator[Card]:
    losses, validation = series(history, "loss"), series(history, "eval_loss")
    tokens = [log["num_input_tokens_seen"] for log in history if "num_input_tokens_seen" in log]
    best = lowest(validation)
    if losses:
        first, last = losses[0], losses[-1]
        yield Card(f"{last.step:,}", "steps", format_seconds(num_seconds(history)))
        yield Card(f"{last.value:.3g}", "training loss", f"{first.value:.3g} at first", "train")
    if best:
        note = f"after step {best.step:,}"
        yield Card(f"{best.value:.3g}", "lowest validation loss", note, "validation")
    if tokens:
        yield Card(f"{int(tokens[-1]):,}", "tokens", "without padding")
    if facts.get("tokens_per_second"):
        yield Card(
            f"{facts['tokens_per_second']:,.0f}",
            "tokens a second",
            f"on {facts['device']}" if "device" in facts else "",
        )
    if facts.get("peak_device_gib"):
        yield Card(f"{facts['peak_device_gib']:.1f} GiB", "peak memory", "on the card")


def _small_figures(history: History, config: RunConfig) -> Iterator[tuple[str, Markup]]:
    limit = config.train.max_grad_norm
    for caption, points, level in (
        ("Learning rate", series(history, "learning_rate"), None),
        (f"Gradient norm; clipped above {limit:g}", series(history, "grad_norm"), limit),
        ("Tokens a second", speeds(history), None),
    ):
        if points:
            title = f"{caption} by optimizer step"
            yield caption, Markup(draw_small(points, title=title, limit=level))
