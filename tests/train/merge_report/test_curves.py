import re
from itertools import combinations

import pytest

from train.merge_report.curves import (
    NARROW_INCHES,
    WIDE_INCHES,
    Price,
    draw_prices,
    draw_survival,
    format_difference,
    kinds_of,
    read_survival,
)


def test_tensors_are_read_by_layer_and_kind_the_worst_first() -> None:
    survived = read_survival(
        {
            "model.layers.0.self_attn.q_proj.weight": 0.99,
            "language_model.model.layers.12.mlp.down_proj.weight": 0.5,
            "lm_head.weight": 0.7,
        }
    )
    assert [(one.cosine, one.layer, one.kind) for one in survived] == [
        (0.5, 12, "down_proj"),
        (0.7, None, None),
        (0.99, 0, "q_proj"),
    ]
    assert kinds_of(survived) == ["q_proj", "down_proj"]


def test_the_level_that_is_asked_for_is_always_in_the_plot() -> None:
    for cosine in (1.0, 0.95, 0.1, -0.5):
        survived = read_survival({"model.layers.0.self_attn.q_proj.weight": cosine})
        plot = draw_survival(survived, width_inches=WIDE_INCHES)
        assert plot.count("stroke: var(--look)") == 1
        assert ">0.90</text>" in plot or ">0.9</text>" in plot or cosine < 0.5


@pytest.mark.parametrize("width", [WIDE_INCHES, NARROW_INCHES])
def test_names_of_near_points_cover_neither_points_nor_each_other(width: float) -> None:
    near = [
        Price("nf4", 12.9, 0.0352),
        Price("w4a16", 12.6, 0.0311),
        Price("q4_k_m", 13.3, 0.0325),
        Price("q5_k_m", 15.6, 0.0112),
        Price("q8_0", 23.3, 0.0007),
        Price("bf16", 43.9, 0.0002),
    ]
    plot = draw_prices(near, width_inches=width)
    found = re.findall(
        r'<text style="[^"]*" x="([-\d.]+)" y="([-\d.]+)"[^>]*>([a-z]\w*\d\w*)</text>', plot
    )
    assert {name for _, _, name in found} == {price.name for price in near}
    places = [(float(x), float(y), 6.5 * len(name)) for x, y, name in found]
    for (x, y, length), (other_x, other_y, other_length) in combinations(places, 2):
        assert abs(x - other_x) >= (length + other_length) / 2 or abs(y - other_y) >= 9
    points = re.findall(r'<use [^>]*x="([-\d.]+)" y="([-\d.]+)"[^>]*var\(--accent\)', plot)
    assert len(points) == len(near)
    for x, y, length in places:
        # A text's place is the foot of its letters.
        assert all(
            abs(x - float(other)) >= length / 2 or abs(y - 3.5 - float(height)) >= 8
            for other, height in points
        )


def test_differences_are_signed() -> None:
    values = (0.01234, -0.5, 0.00001)
    assert [format_difference(value) for value in values] == ["+0.0123", "−0.5000", "0.0000"]
    assert [format_difference(value, short=True) for value in values] == ["+0.0123", "−0.5", "0"]
