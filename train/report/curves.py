"""The curves of a training as inline SVG that takes its colours and its font from the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from data.figures import page_style, to_svg
from data.training_log import Point, thin

# Drawn in these and replaced by the page's own variables, so that dark mode reaches the plots.
MUTED, LINE, CARD, TRAIN, VALIDATION, LOOK = (f"#0000b{n}" for n in range(6))
PAGE_COLOURS = {
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    CARD: "var(--card)",
    TRAIN: "var(--train)",
    VALIDATION: "var(--validation)",
    LOOK: "var(--look)",
}
STYLE = {"axes.edgecolor": LINE, "xtick.color": MUTED, "ytick.color": MUTED}
MAX_POINTS = 800
MANY_TIMES = 8
MAX_MARKERS = 60
WIDE_INCHES, NARROW_INCHES, SMALL_INCHES = 9.0, 4.4, 3.4


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """What the loss plot shows; events: the steps to be marked, numbered in this order."""

    training: Sequence[Point]
    smoothed: Sequence[Point]
    validation: Sequence[Point]
    best: Point | None
    events: Sequence[int]

    @property
    def mean_values(self) -> list[float]:
        """What the plot has to show whole."""
        return [point.value for point in [*self.smoothed, *self.validation]]


def draw_losses(curves: LossCurves, *, width_inches: float) -> str:
    """Training losses, their trailing mean, the validation losses, the best of them, the events."""
    with page_style(STYLE):
        axes = _new_axes(width_inches, height_inches=3.4, left_inches=0.52)
        _draw_line(axes, curves.training, TRAIN, linewidth=0.9, alpha=0.35)
        _draw_line(axes, curves.smoothed, TRAIN, linewidth=2.0)
        few = len(curves.validation) <= MAX_MARKERS
        _draw_line(axes, curves.validation, VALIDATION, linewidth=1.8, has_markers=few)
        if curves.best:
            axes.plot(
                [curves.best.step],
                [curves.best.value],
                "o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=VALIDATION,
                markeredgewidth=1.8,
            )
        for number, step in enumerate(curves.events, start=1):
            axes.axvline(step + 0.5, color=LOOK, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                str(number),
                (step + 0.5, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=LOOK,
                fontweight="bold",
            )
        _limit_to_means(axes, curves.mean_values)
        return to_svg(
            axes, colours=PAGE_COLOURS, title="Loss by optimizer step; the numbers follow below"
        )


def draw_small(points: Sequence[Point], *, title: str, limit: float | None = None) -> str:
    """One curve from zero on; limit: a level to be shown beside it."""
    with page_style(STYLE):
        axes = _new_axes(SMALL_INCHES, height_inches=1.8, left_inches=0.64)
        _draw_line(axes, points, TRAIN, linewidth=1.5)
        if limit is not None:
            axes.axhline(limit, color=LOOK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(lambda value, _: format_tick(value))
        return to_svg(axes, title, PAGE_COLOURS)


def needs_logarithm(values: Sequence[float]) -> bool:
    """Whether the end of a curve would lie flat at the bottom of a plot of all of it."""
    return bool(values) and min(values) > 0 and max(values) > MANY_TIMES * min(values)


def format_tick(value: float) -> str:
    """A number on an axis, short: 2e-4, 0.05, 2.5, 1,500."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def _draw_line(
    axes: Axes,
    points: Sequence[Point],
    colour: str,
    *,
    linewidth: float,
    alpha: float = 1.0,
    has_markers: bool = False,
) -> None:
    shown = thin(points, MAX_POINTS)
    axes.plot(
        [point.step for point in shown],
        [point.value for point in shown],
        color=colour,
        linewidth=linewidth,
        alpha=alpha,
        # A single point has no line to be seen by.
        marker="o" if has_markers or len(shown) == 1 else "",
        markersize=4.5,
        solid_joinstyle="round",
    )


def _limit_to_means(axes: Axes, values: Sequence[float]) -> None:
    """Let the mean curves fill the plot: a single step's spike may leave it."""
    if not values:
        return
    low, high = min(values), max(values)
    if needs_logarithm(values):
        room = (high / low) ** 0.06
        axes.set_yscale("log")
        axes.set_ylim(low / room, high * room)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(lambda value, _: format_tick(value))
        return
    room = (high - low or abs(high) or 1.0) * 0.12
    axes.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + room)


def _new_axes(width_inches: float, *, height_inches: float, left_inches: float) -> Axes:
    figure = Figure(figsize=(width_inches, height_inches))
    left, bottom, top = left_inches / width_inches, 0.3 / height_inches, 0.24 / height_inches
    # Room for half of the last step's number.
    right = 0.2 / width_inches
    axes = figure.add_axes((left, bottom, 1 - left - right, 1 - bottom - top))
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.015)
    return axes
