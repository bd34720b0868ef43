"""The plots of the merge report: what of the update is left by layer, and what small files cost."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.figures import page_style, to_svg

# Drawn in these and replaced by the page's own variables, so that dark mode reaches the plots.
MUTED, LINE, INK, ACCENT, LOOK, CARD = (f"#0000b{n}" for n in range(6))
KINDS = [f"#0000c{n}" for n in range(7)]
PAGE_COLOURS = {
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    INK: "var(--ink)",
    ACCENT: "var(--accent)",
    LOOK: "var(--look)",
    CARD: "var(--card)",
} | {colour: f"var(--kind-{n})" for n, colour in enumerate(KINDS)}
STYLE = {"axes.edgecolor": LINE, "xtick.color": MUTED, "ytick.color": MUTED}
# Each kind of layer is told apart by form as well as by colour; the page's key has the same forms.
MARKERS = ("o", "s", "^", "v", "D", "P", "X")
SIGNS = ("●", "■", "▲", "▼", "◆", "✚", "✖")
WIDE_INCHES, NARROW_INCHES = 9.0, 4.4
GOOD_COSINE = 0.9
MIN_COSINE_SHOWN = 0.88
LAYER = re.compile(r"\.layers\.(\d+)\.(?:.*\.)?([^.]+)\.weight$")
DASHES = (0, (4, 3))
# Of the names in a plot, in pixels of a figure at 100 to the inch: half a point's width, a letter's
# width, half a line's height.
POINT, LETTER, ROW = 6.0, 8.5, 8.0


class Survived(NamedTuple):
    """Cosine of one tensor; layer and kind (`q_proj`) are None outside the numbered layers."""

    tensor: str
    cosine: float
    layer: int | None
    kind: str | None


class Price(NamedTuple):
    """An artefact's size and how much higher its held-out loss is than the adapter's own."""

    name: str
    gib: float
    increase: float


class Box(NamedTuple):
    """A rectangle of a plot, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "Box") -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def read_survival(cosines: Mapping[str, float]) -> list[Survived]:
    """All tensors, the worst first."""
    found = []
    for tensor, cosine in cosines.items():
        match = LAYER.search(tensor)
        layer, kind = (int(match[1]), match[2]) if match else (None, None)
        found.append(Survived(tensor, cosine, layer, kind))
    return sorted(found, key=lambda one: one.cosine)


def kinds_of(survived: Sequence[Survived]) -> list[str]:
    """The kinds of layers in the tensors' own order, which is that of a layer's forward pass."""
    order = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    kinds = {one.kind for one in survived if one.kind is not None}
    return sorted(kinds, key=lambda kind: (order.index(kind) if kind in order else 99, kind))


def draw_survival(survived: Sequence[Survived], *, width_inches: float) -> str:
    """Cosine by layer, a line for each kind, and the level that is asked for."""
    with page_style(STYLE):
        axes = _new_axes(width_inches, height_inches=3.2, left_inches=0.52, bottom_inches=0.5)
        for number, kind in enumerate(kinds_of(survived)):
            # Layers of both towers of a model may bear one number: each is a point.
            points = sorted((one.layer or 0, one.cosine) for one in survived if one.kind == kind)
            axes.plot(
                [layer for layer, _ in points],
                [cosine for _, cosine in points],
                color=KINDS[number % len(KINDS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4.5,
                linewidth=0.9,
                alpha=0.9,
            )
        axes.axhline(GOOD_COSINE, color=LOOK, linewidth=1.3, linestyle=DASHES)
        lowest = min((one.cosine for one in survived if one.kind), default=1.0)
        bottom = min(MIN_COSINE_SHOWN, lowest - 0.03)
        axes.set_ylim(bottom, 1 + (1 - bottom) * 0.06)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("layer", color=MUTED)
        return to_svg(axes, "Cosine of wanted and applied update by layer", PAGE_COLOURS)


def draw_prices(prices: Sequence[Price], *, width_inches: float) -> str:
    """Loss difference over size, each artefact by its name."""
    with page_style(STYLE):
        axes = _new_axes(width_inches, height_inches=3.0, left_inches=0.72, bottom_inches=0.5)
        axes.axhline(0, color=MUTED, linewidth=1.2, linestyle=DASHES)
        ordered = sorted(prices, key=lambda price: (price.gib, price.name))
        axes.plot(
            [price.gib for price in ordered],
            [price.increase for price in ordered],
            "o",
            color=ACCENT,
            markersize=8,
        )
        largest = max((price.gib for price in ordered), default=1.0)
        axes.set_xlim(0, largest * 1.14)
        values = [0.0, *(price.increase for price in ordered)]
        room = (max(values) - min(values) or 0.01) * 0.3
        axes.set_ylim(min(values) - room, max(values) + room)
        _name_points(axes, ordered)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(lambda value, _: format_difference(value, short=True))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("size, GiB", color=MUTED)
        return to_svg(axes, "Loss difference by size of the artefact", PAGE_COLOURS)


def format_difference(value: float, *, short: bool = False) -> str:
    """A signed number with a real minus; short: without the zeros at its end."""
    if abs(value) < 5e-5:
        return "0" if short else "0.0000"
    text = f"{abs(value):.4f}"
    return ("+" if value > 0 else "−") + (text.rstrip("0").rstrip(".") if short else text)


def _name_points(axes: Axes, prices: Sequence[Price]) -> None:
    """Names beside their points, where they cover neither a point nor another name."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    points = [axes.transData.transform((price.gib, price.increase)) for price in prices]
    taken = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    frame = axes.get_window_extent()
    for price, (x, y) in zip(prices, points, strict=True):
        half = len(price.name) * LETTER / 2
        boxes = [
            Box(x + dx - half, y + dy - ROW, x + dx + half, y + dy + ROW)
            for dx, dy in (
                (0.0, 2 * ROW),
                (half + 2 * POINT, 0.0),
                (-half - 2 * POINT, 0.0),
                (0.0, -2 * ROW),
                (half, 4 * ROW),
                (half, -4 * ROW),
                (0.0, 6 * ROW),
            )
        ]
        inside = [box for box in boxes if frame.x0 <= box.left and box.right <= frame.x1] or boxes
        free = [box for box in inside if not any(box.meets(other) for other in taken)]
        box = (free or inside)[0]
        taken.append(box)
        centre = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
        # Back into the axes' units: pixels are not the same when the figure is saved.
        at, height = axes.transData.inverted().transform(centre)
        ground = {"facecolor": CARD, "edgecolor": "none", "pad": 0.5}
        axes.text(at, height, price.name, color=INK, ha="center", va="center", bbox=ground)


def _new_axes(
    width_inches: float, *, height_inches: float, left_inches: float, bottom_inches: float
) -> Axes:
    figure = Figure(figsize=(width_inches, height_inches))
    left, bottom = left_inches / width_inches, bottom_inches / height_inches
    right, top = 0.2 / width_inches, 0.12 / height_inches
    axes = figure.add_axes((left, bottom, 1 - left - right, 1 - bottom - top))
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)
    return axes
