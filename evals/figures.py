"""The report's plots as inline SVG that takes its colours and its font from the page."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.figures import page_style, to_svg
from evals.results import PromptResult, TaskResult

# Drawn in these and replaced by the page's own variables, so that dark mode reaches the plots.
INK, MUTED, LINE, CARD, BASELINE, VARIANT, BAND = (f"#0000a{n}" for n in range(7))
PAGE_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    CARD: "var(--card)",
    BASELINE: "var(--baseline)",
    VARIANT: "var(--variant)",
    BAND: "var(--band)",
}
STYLE = {
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
}
WIDTH_INCHES = 5.2


def draw_scores(rows: Sequence[tuple[str, PromptResult, bool]]) -> str:
    """Scores with their intervals, in percent; rows: label, score, whether it is the variant's."""
    with page_style(STYLE):
        axes = _new_axes(num_rows=len(rows))
        for height, (label, result, is_variant) in zip(
            range(len(rows) - 1, -1, -1), rows, strict=True
        ):
            low, high = (100 * bound for bound in result["interval"])
            _draw_row(
                axes,
                height,
                label=label,
                value=100 * result["score"],
                interval=(low, high),
                text=f"{100 * result['score']:.1f} %",
                colour=VARIANT if is_variant else BASELINE,
            )
        axes.set_xlim(-3, 103)
        axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25", "50", "75", "100"])
        return to_svg(
            axes, colours=PAGE_COLOURS, title="Share answered exactly right, with intervals"
        )


def draw_difference(task: TaskResult) -> str:
    """The paired difference with its interval, against zero and the margin, in points."""
    low, high = (100 * bound for bound in task["ci95"])
    margin = 100 * task["equivalence_margin"]
    reach = max(abs(low), abs(high), 2 * margin) * 1.15
    with page_style(STYLE):
        axes = _new_axes(num_rows=1)
        axes.axvspan(-margin, margin, color=BAND, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1)
        _draw_row(
            axes,
            0,
            label="variant minus baseline",
            value=100 * task["delta"],
            interval=(low, high),
            text=f"{signed(100 * task['delta'])} points",
            colour=VARIANT,
        )
        axes.set_xlim(-reach, reach)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: signed(value, digits=0))
        return to_svg(
            axes, colours=PAGE_COLOURS, title="Paired difference in points, with its interval"
        )


def signed(value: float, *, digits: int = 1) -> str:
    """A number with its sign, a real minus, and no sign for what rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def _new_axes(*, num_rows: int) -> Axes:
    height = 0.4 + 0.72 * num_rows
    figure = Figure(figsize=(WIDTH_INCHES, height))
    bottom = 0.32 / height
    axes = figure.add_axes((0.01, bottom, 0.98, 1 - bottom))
    axes.set_ylim(-0.35, num_rows - 0.3)
    axes.yaxis.set_visible(False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)
    return axes


def _draw_row(
    axes: Axes,
    height: float,
    *,
    label: str,
    value: float,
    interval: tuple[float, float],
    text: str,
    colour: str,
) -> None:
    axes.plot(interval, (height, height), color=colour, linewidth=6, alpha=0.35)
    axes.plot([value], [height], "o", color=colour, markersize=10)
    above = height + 0.24
    edges = axes.get_yaxis_transform()
    # Grid lines end before the words.
    box = {"facecolor": CARD, "edgecolor": "none", "pad": 1.5}
    axes.text(0.01, above, label, transform=edges, va="bottom", bbox=box)
    axes.text(
        0.99, above, text, transform=edges, va="bottom", ha="right", fontweight="bold", bbox=box
    )
