from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks import verdict_populations as draws
from benchmarks.verdict import (
    Setting,
    families,
    format_cell,
    lost_margins,
    render_markdown,
    simulate,
    simulate_family,
    simulate_non_inferiority,
)
from evals.statistics.method_note import Cell, load_method_note, summarise
from evals.statistics.power import mcnemar_power

TRIALS = 400


def test_equal_models_are_rarely_told_apart_and_the_interval_covers() -> None:
    for layout in (draws.single(100), draws.clustered(200, 5, 0.4)):
        cell = simulate(Setting(draws.binary(0.2, 0.2), layout), num_trials=TRIALS, seed=1)
        # Three standard errors of 400 trials around 2.5 % and 95 %.
        assert cell["shares"]["better"] <= 0.049
        assert 0.917 <= cell["shares"]["coverage"] <= 0.983


def test_ignoring_clusters_would_be_noticed() -> None:
    layout = draws.clustered(300, 20, 0.6)

    @dataclass
    class Forgetful:
        """The same questions, handed on without their labels."""

        num: int = layout.num
        sizes: tuple[int, ...] = layout.sizes
        correlation: float = layout.correlation
        labels: None = None
        design_effect: float = layout.design_effect

    setting = Setting(draws.binary(0.2, 0.2), Forgetful())  # type: ignore[arg-type]
    shares = simulate(setting, num_trials=TRIALS, seed=1)["shares"]
    assert shares["coverage"] < 0.8
    assert shares["better"] > 0.1


def test_power_is_that_of_the_plan() -> None:
    planned = mcnemar_power(100, share_won=0.22, share_lost=0.07, confidence=0.95)
    setting = Setting(draws.binary(0.22, 0.07), draws.single(100), planned)
    cell = simulate(setting, num_trials=TRIALS, seed=2)
    assert cell["kind"] == "power"
    assert cell["shares"]["better"] == pytest.approx(planned, abs=0.065)


def test_a_variant_that_lost_the_margin_rarely_passes() -> None:
    for name, tasks in list(lost_margins())[8:10]:
        cell = simulate_non_inferiority(name, tasks, num_trials=100, seed=3)
        assert cell["shares"]["passed"] <= 0.05 + 3 * 0.022


def test_three_tasks_together_keep_the_level() -> None:
    name, tasks = next(families())
    cell = simulate_family(name, tasks, num_trials=100, seed=4)
    assert cell["shares"]["claimed"] <= 0.05 + 3 * 0.022


def test_intra_cluster_correlation_is_the_one_asked_for() -> None:
    population, layout = draws.binary(0.3, 0.2), draws.clustered(4000, 2, 0.4)
    rows = draws.draw(population, layout, np.random.default_rng(5))
    differences = rows[:, 1] - rows[:, 0]
    starts = np.cumsum((0, *layout.sizes))[:-1][np.array(layout.sizes) == 2]
    found = np.corrcoef(differences[starts], differences[starts + 1])[0, 1]
    assert found == pytest.approx(0.4, abs=0.06)
    assert differences.mean() == pytest.approx(population.delta, abs=0.05)


def test_the_committed_note_is_what_its_cells_say() -> None:
    note = load_method_note()
    again = summarise(
        note["cells"], date=note["date"], machine=note["machine"], versions=note["versions"]
    )
    assert again == note
    assert all(cell["num_trials"] >= 1000 for cell in note["cells"])
    assert format_cell(note["cells"][0]) in render_markdown(note)


def test_a_cell_that_misses_its_bar_is_named() -> None:
    cells = load_method_note()["cells"]
    broken: Cell = {**cells[0], "num_trials": 4000, "true_delta": 0.0}
    broken["shares"] = {"coverage": 0.9, "better": 0.2, "worse": 0.0}
    lines = summarise([*cells, broken], date="", machine="", versions={})["falls_short"][-2:]
    assert "too little" in lines[0]
    assert "equal models called better in 20.0 %" in lines[1]
