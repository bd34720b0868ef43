import pytest

from evals.report.figures import MAX_TICKS, Axis, build_forest
from tests.evals.report import factories


@pytest.mark.parametrize(
    ("low", "high"), [(-0.3, 0.7), (-0.05, 0.06), (-1.1, 1.1), (-0.001, 0.0012), (-0.47, 0.02)]
)
def test_ticks_are_few_round_and_in_place(low: float, high: float) -> None:
    axis = Axis(low, high)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= MAX_TICKS
    assert any(tick.value == 0 for tick in ticks)
    for tick in ticks:
        share = (tick.value / 100 - low) / (high - low)
        assert tick.at == pytest.approx(100 * share, abs=0.01)


def test_groups_come_in_order_and_guards_have_a_scale_of_their_own() -> None:
    primary, exploratory, guard = build_forest(factories.realistic()[0])
    assert [group.role for group in (primary, exploratory, guard)] == [
        "primary",
        "exploratory",
        "guard",
    ]
    assert primary.ticks == exploratory.ticks != guard.ticks
    assert [len(group.rows) for group in (primary, exploratory, guard)] == [3, 1, 7]


def test_the_margin_lies_on_both_sides_of_zero_but_for_guards_below_it() -> None:
    primary, _, guard = build_forest(factories.realistic()[0])
    assert primary.band[0] < primary.zero_at < primary.band[1]
    assert primary.zero_at - primary.band[0] == pytest.approx(
        primary.band[1] - primary.zero_at, abs=0.02
    )
    assert guard.band[1] == guard.zero_at > guard.band[0]


def test_every_row_lies_inside_the_plot_around_its_difference() -> None:
    for build in (factories.realistic, factories.minimal, factories.many):
        for group in build_forest(build()[0]):
            for row in group.rows:
                assert 0 < row.low_at <= row.at <= row.high_at <= 100


def test_the_pooled_row_ends_below_at_its_bound_and_is_open_above() -> None:
    pooled = build_forest(factories.realistic()[0])[2].rows[0]
    assert pooled.is_pooled
    assert pooled.interval == (-0.081, None)
    assert pooled.high_at == 100
    assert pooled.passed is False
