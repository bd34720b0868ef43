"""Plots of the pages: inline SVG that takes its colours and its font from the page around it."""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def page_style(settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """What all plots share of matplotlib's settings, with a page's own `settings` on top."""
    shared: dict[Any, Any] = {
        # Text stays text: the page's font, selectable, and never a formula.
        "svg.fonttype": "none",
        "text.parse_math": False,
        "svg.hashsalt": "tunery",
        "font.size": 10.0,
    }
    return matplotlib.rc_context(shared | dict(settings))


def to_svg(axes: Axes, title: str, colours: Mapping[str, str]) -> str:
    """The plot as an element for a page; colours: drawn ones and what the page calls them."""
    buffer = io.StringIO()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    for drawn, colour in colours.items():
        text = text.replace(drawn, colour)
    # The page sets the width; a viewBox is all that it needs to know the shape.
    head, _, body = text[text.index("<svg") :].partition(">")
    view_box = head.split('viewBox="')[1].split('"')[0]
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view_box}" role="img" '
        f'aria-label="{title}"><title>{title}</title>{body}'
    )
