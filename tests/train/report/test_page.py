"""The page as a browser would read it, over the log of a training and texts that are hostile."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from configs.load import load_config
from configs.schema import RunConfig
from data.training_log import History, Point
from tests.configs.minimal import write_config
from train.report.curves import PAGE_COLOURS, format_tick, needs_logarithm
from train.report.notes import build_notes, format_seconds, stopped_early
from train.report.page import find_events, flatten, format_setting, loss_table, write_report

HOSTILE = "</svg></pre><script>alert('1')</script><img src=x onerror=\"a(2)\"> {{ 7 * 7 }} & $x_1$"
FACTS: dict[str, Any] = {
    "tokens_per_second": 512.4,
    "device": HOSTILE,
    "peak_device_gib": 3.25,
    "memory_reliefs": [HOSTILE],
    "events": [{"step": 3, "text": HOSTILE}],
}


def build_history(
    losses: list[float], validation: dict[int, float], *, resumed_at: int | None = None
) -> list[dict[str, float]]:
    history: list[dict[str, float]] = []
    behind = 0
    for step, loss in enumerate(losses, start=1):
        if step == resumed_at:
            behind = step - 1
        seconds = 2.0 * (step - behind)
        history.append(
            {
                "step": step,
                "loss": loss,
                "grad_norm": loss / 2,
                "learning_rate": 2e-4,
                "num_input_tokens_seen": 1000 * step,
                "train_runtime": seconds,
                "train_tokens_per_second": 1000 * (step - behind) / seconds,
            }
        )
        if step in validation:
            history.append({"step": step, "eval_loss": validation[step], "eval_runtime": 0.1})
    return history


HISTORY = build_history(
    [4.0 / step for step in range(1, 41)], {10: 0.9, 20: 0.5, 30: 0.4, 40: 0.6}, resumed_at=26
)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    loaded = load_config(write_config(tmp_path))
    return loaded.model_copy(update={"description": HOSTILE})


def with_train(config: RunConfig, **update: object) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=update)})


@pytest.fixture
def html(config: RunConfig, tmp_path: Path) -> str:
    file = tmp_path / "report.html"
    write_report(file, config=config, facts=FACTS, history=HISTORY)
    return file.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Tags that do not close, and every attribute that could load or run something."""

    VOID = ("meta", "link", "br", "img", "input", "use", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids |= {value or "" for key, value in attrs if key == "id"}
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_runs_nothing(html: str) -> None:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert not outline.tags & {"script", "link", "img", "iframe"}
    assert outline.handlers == []
    assert all(link[0] == "#" and link[1:] in outline.ids for link in outline.links)
    assert not re.findall(r"url\((?!#)|@import", html)
    # Description, event and relief; the device twice.
    assert html.count("&lt;script&gt;") == 5


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_the_figures_at_the_head_are_those_of_the_log(html: str) -> None:
    text = text_of(html)
    # 25 steps of 2 s, then 15 of another process.
    assert "40 steps 1 min 20 s" in text
    assert "0.1 training loss 4 at first" in text
    assert "0.4 lowest validation loss after step 30" in text
    assert "40,000 tokens" in text
    assert "512 tokens a second" in text
    assert "3.2 GiB peak memory on the card" in text


def plots(html: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", html, re.DOTALL)


def test_the_plots_are_svg_in_the_pages_colours(html: str) -> None:
    drawn = plots(html)
    # The losses twice, for wide and for narrow pages.
    assert len(drawn) == 2 + 3
    for plot in drawn:
        ElementTree.fromstring(plot)
        assert not any(colour in plot for colour in PAGE_COLOURS)
        assert "var(--train)" in plot
    for plot in drawn[:2]:
        assert "var(--validation)" in plot
        assert "var(--look)" in plot


def num_line_points(plot: str, colour: str) -> int:
    """Points of the longest line in a colour."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {re.escape(colour)}', plot)
    return max((len(re.findall(r"[ML] ", path)) for path in paths), default=0)


def test_the_plot_has_a_point_for_each_step_and_validation(html: str) -> None:
    plot = plots(html)[0]
    assert num_line_points(plot, "var(--train)") == 40
    assert num_line_points(plot, "var(--validation)") == 4


def test_events_are_numbered_in_the_plot_as_below_it(config: RunConfig, html: str) -> None:
    events = find_events(FACTS, HISTORY, config=config)
    assert [(event["step"], event["text"][:10]) for event in events] == [
        (3, HOSTILE[:10]),
        (25, "broken off"),
    ]
    labels = [e.text for e in ElementTree.fromstring(plots(html)[0]).iter() if e.text]
    assert {"1", "2"} <= set(labels)
    assert "2 After step 25: broken off, and resumed from this step" in text_of(html)


def test_the_numbers_stand_in_a_table(html: str) -> None:
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    rows = [text_of(row).split() for row in body.split("</tr>")[:-1]]
    # The trailing mean of 5 steps: 4 / 6 to 4 / 10.
    assert rows[0] == ["10", f"{sum(4 / n for n in range(6, 11)) / 5:.4f}", "0.9000"]
    assert [row[0] for row in rows] == ["10", "20", "30", "40"]


def test_a_long_table_is_thinned_and_keeps_its_end() -> None:
    points = [Point(step, 1.0) for step in range(1, 1001)]
    table = loss_table(points, [])
    assert len(table) <= 60
    assert table[-1] == (1000, 1.0, None)
    assert loss_table([], []) == []


def test_every_setting_stands_on_the_page(config: RunConfig, html: str) -> None:
    settings = dict(flatten(config.train.model_dump(mode="json")))
    assert settings["lora.rank"] == config.train.lora.rank
    for name, value in settings.items():
        assert f"<dt>{name}</dt><dd>{format_setting(value)}</dd>" in html


def levels(config: RunConfig, facts: dict[str, Any], history: History) -> list[tuple[str, str]]:
    return [(note.level, note.text) for note in build_notes(facts, history, settings=config.train)]


def find(notes: list[tuple[str, str]], words: str) -> str:
    (level,) = [level for level, text in notes if words in text]
    return level


def test_what_is_worth_a_look_comes_first(config: RunConfig) -> None:
    notes = levels(config, FACTS, HISTORY)
    assert [level for level, _ in notes] == sorted(
        (level for level, _ in notes), key=("wrong", "look", "fine").index
    )
    assert find(notes, "and then rises to 0.6: fewer steps") == "look"
    assert find(notes, "Memory ran out") == "look"
    assert find(notes, "resumed once, after step 25") == "fine"
    # A norm of half the loss is above 1 in the first step alone: 4 / 2.
    assert find(notes, "1 of 40 steps had a gradient norm above") == "fine"


@pytest.mark.parametrize(
    ("validation", "level", "words"),
    [
        ({10: 0.9, 20: 0.5}, "look", "still falls at the end"),
        ({10: 0.9, 20: 0.9}, "fine", "hardly moves at the end"),
        ({20: 0.9}, "fine", "the only one"),
        ({}, "look", "no validation loss"),
    ],
)
def test_the_end_of_the_validation_loss_is_weighed(
    validation: dict[int, float], level: str, words: str, config: RunConfig
) -> None:
    history = build_history([1.0] * 20, validation)
    assert find(levels(config, {}, history), words) == level


def test_many_clipped_steps_are_worth_a_look(config: RunConfig) -> None:
    assert find(levels(config, {}, build_history([9.0] * 9, {})), "9 of 9 steps had") == "look"


def test_early_stopping_is_told(config: RunConfig, tmp_path: Path) -> None:
    history = build_history([1.0] * 40, {10: 0.9, 20: 0.5, 30: 0.6, 40: 0.6})
    validation = [Point(10, 0.9), Point(20, 0.5), Point(30, 0.6), Point(40, 0.6)]
    patient = with_train(config, early_stopping_patience=2)
    assert stopped_early(validation, patient.train)
    assert not stopped_early(validation[:3], patient.train)
    assert not stopped_early(validation, config.train)
    notes = levels(patient, {}, history)
    assert find(notes, "the adapter is the one of that step, and training ended early") == "fine"
    (event,) = find_events({}, history, config=patient)
    assert event == {"step": 40, "text": "ended: 2 validations without a lower loss"}


def test_a_training_that_failed_has_a_page_too(config: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    for history in ([], HISTORY[:7]):
        facts = {"error": f"step 7 has loss nan {HOSTILE}\n  to do: lower it"}
        write_report(file, config=config, facts=facts, history=history)
        text = text_of(file.read_text(encoding="utf-8"))
        assert "Wrong: Training did not end: step 7 has loss nan" in text
        assert ("No step was finished." in text) == (not history)
        if history:
            assert "After step 7: ended: step 7 has loss nan" in text


def test_what_is_logged_after_training_is_none_of_its_points(
    config: RunConfig, tmp_path: Path, html: str
) -> None:
    file = tmp_path / "again.html"
    after = [{"step": 40, "train_loss": 0.3, "train_runtime": 30.0}, {"step": 40, "eval_loss": 0.1}]
    write_report(file, config=config, facts=FACTS, history=[*HISTORY, *after])
    assert file.read_text(encoding="utf-8") == html


def test_the_same_training_gives_the_same_page(
    config: RunConfig, tmp_path: Path, html: str
) -> None:
    file = tmp_path / "again.html"
    write_report(file, config=config, facts=FACTS, history=HISTORY)
    assert file.read_text(encoding="utf-8") == html


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_scale(
    config: RunConfig, tmp_path: Path
) -> None:
    assert needs_logarithm([5.0, 0.2])
    assert not needs_logarithm([5.0, 4.0])
    assert not needs_logarithm([5.0, 0.0])
    assert not needs_logarithm([])
    file = tmp_path / "report.html"
    for history, is_told in ((HISTORY, True), (build_history([2.0, 1.9], {}), False)):
        write_report(file, config=config, facts={}, history=history)
        assert ("on a logarithmic scale" in file.read_text(encoding="utf-8")) == is_told


def test_numbers_are_written_for_people() -> None:
    assert [format_tick(x) for x in (0, 2e-4, 1.5e-5, 0.05, 2.5, 1500)] == [
        "0",
        "2e-4",
        "1.5e-5",
        "0.05",
        "2.5",
        "1,500",
    ]
    assert [format_seconds(s) for s in (0.84, 12.3, 59.6, 300, 326, 3600, 7530, 1e6)] == [
        "0.8 s",
        "12 s",
        "1 min",
        "5 min",
        "5 min 26 s",
        "1 h",
        "2 h 6 min",
        "277 h 47 min",
    ]
    assert [format_setting(x) for x in (None, True, 2e-4, [], ["a", "b"], "nf4", 3)] == [
        "–",
        "true",
        "0.0002",
        "none",
        "a, b",
        "nf4",
        "3",
    ]
