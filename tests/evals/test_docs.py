"""What docs/evaluation.md tells people to copy works, and its tables are whole."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel
from ruamel.yaml import YAML
from typer.core import TyperGroup

from configs.evaluation_schema import GuardSetName, MetricName
from configs.load import load_config
from evals.guard.load_guard import GUARD_SETS
from evals.guard.question_set import GuardSet
from evals.metrics.registry import METRICS
from evals.statistics.method_note import load_method_note
from tests.configs.minimal import write_config
from tunery import app

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "evaluation.md"
TEXT = PAGE.read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(tunery [^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)")
# Their questions come from the package index, so that they cannot be counted offline.
FETCHED = ("knowledge", "reasoning")


@dataclass(frozen=True)
class Block:
    """A fenced block of the page; line: where it begins."""

    line: int
    language: str
    text: str


BLOCKS = [
    Block(TEXT.count("\n", 0, found.start()) + 1, found[1], found[2])
    for found in FENCED.finditer(TEXT)
]


def blocks(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def read_yaml(block: Block) -> dict[str, Any]:
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(block.text)
    return read


def is_workflow(block: Block) -> bool:
    return "jobs" in read_yaml(block)


def terminal_commands() -> list[tuple[str, str]]:
    """Place and text of each command that stands in a block, in a workflow's steps too."""
    lines = [(block.line, line) for block in blocks("") for line in block.text.splitlines() if line]
    lines += [
        (block.line, step["run"])
        for block in blocks("yaml")
        if is_workflow(block)
        for job in read_yaml(block)["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    return [(f"line {line}", text) for line, text in lines if text.startswith("tunery ")]


def parse(command: str) -> None:
    """Let the command's own parser read it, without doing it. Errors: those of a wrong call."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    _, name, *arguments = shlex.split(command, comments=True)
    with root.make_context("tunery", [name, *arguments]) as context:
        found = root.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        found.make_context(name, arguments, parent=context)


def given(tree: dict[str, Any], config: BaseModel, place: str = "") -> Iterator[tuple[str, bool]]:
    """Each key of a snippet, and whether the configuration holds what was written there."""
    for key, value in tree.items():
        held = getattr(config, key)
        if isinstance(value, dict) and isinstance(held, BaseModel):
            yield from given(value, held, f"{place}{key}.")
        elif isinstance(value, str | int | float | bool) and not isinstance(held, Path):
            yield f"{place}{key}", held == value
        else:
            yield f"{place}{key}", key in config.model_fields_set


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own headings."""
    _, found, below = TEXT.partition(f"\n{heading}\n")
    assert found, f"the page has no {heading}"
    lines = below.split("\n#", maxsplit=1)[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@pytest.mark.parametrize(
    "block",
    [pytest.param(one, id=f"line {one.line}") for one in blocks("yaml") if not is_workflow(one)],
)
def test_configurations_are_read(block: Block, tmp_path: Path) -> None:
    write_config(tmp_path)
    file = tmp_path / "example.yaml"
    file.write_text(f"extends: minimal.yaml\n{block.text}", encoding="utf-8")
    held = dict(given(read_yaml(block), load_config(file)))
    assert held
    assert all(held.values()), held


def test_the_page_shows_every_baseline() -> None:
    shown = [read_yaml(one) for one in blocks("yaml") if not is_workflow(one)]
    kinds = {one["evaluation"].get("baseline", {}).get("kind") for one in shown}
    assert kinds >= {"base", "hosted", "recorded"}


@pytest.mark.parametrize(("place", "command"), terminal_commands())
def test_commands_are_accepted(place: str, command: str) -> None:
    parse(command)


def test_the_page_shows_every_option_of_evaluate() -> None:
    """And no command that the test above does not see: all stand at the beginning of a line."""
    commands = [text for _, text in terminal_commands()]
    assert len(commands) == len(re.findall(r"^(?:.*run: )?tunery .*$", fenced_text(), re.MULTILINE))
    for option in ("--limit", "--record", "--compare", "--gate"):
        assert any(option in command for command in commands), option


def fenced_text() -> str:
    return "".join(block.text for block in BLOCKS)


@pytest.mark.parametrize("command", sorted(set(INLINE.findall(TEXT))))
def test_commands_named_in_the_text_exist(command: str) -> None:
    try:
        parse(command)
    except typer.BadParameter as error:
        # In a sentence a command may stand without what it works on.
        assert type(error).__name__ == "MissingParameter", error.format_message()


def test_the_table_names_every_metric_as_reports_do() -> None:
    rows = [(row[0].strip("`"), row[1]) for row in table("### Metrics")]
    assert sorted(rows) == sorted((name, METRICS[name].title) for name in get_args(MetricName))


def test_the_table_names_every_guard_set_with_its_tasks() -> None:
    rows = [(row[0].strip("`"), row[1], row[3].strip("`")) for row in table("### Guard sets")]
    assert {name for name, _, _ in rows} == set(get_args(GuardSetName))
    assert rows == [(name, one.title, one.metric) for name, one in guard_sets()]


def test_the_guard_table_tells_licences_and_counts_what_is_here() -> None:
    for row, (name, one) in zip(table("### Guard sets"), guard_sets(), strict=True):
        assert one.licence.startswith(row[4]), row
        if name not in FETCHED:
            questions = one.load()
            clusters = {question.cluster for question in questions}
            assert row[2] == f"{len(questions)}, {len(clusters)}", row


def guard_sets() -> list[tuple[GuardSetName, GuardSet]]:
    return [(name, one) for name, sets in GUARD_SETS.items() for one in sets]


def test_the_guarantees_are_those_that_were_simulated() -> None:
    note = load_method_note()
    low, high = note["coverage_range"]
    rare_low, rare_high = note["rare_coverage_range"]
    told = {row[0]: row[2] for row in table("### How often it is wrong")}
    figures = {
        "equal models called better": (note["false_better_mean"], note["false_better_max"]),
        "a 95 % interval holds the truth, 150 ordinary settings": (
            *(note["mean_coverage"], low),
            high,
        ),
        "the same, 69 settings with few questions that differ": (rare_low, rare_high),
        "three equal primary tasks, any called better or worse": (note["family_error_max"],),
        "a loss of the whole guard margin passes": (note["non_inferiority_max"],),
        "power against the plan, 11 settings": (note["power_deviation_max"],),
    }
    assert told.keys() == figures.keys()
    for name, values in figures.items():
        for value in values:
            assert f"{100 * value:.1f}" in told[name], f"{name}: {100 * value:.2f}"
    assert f"{note['num_comparisons']:,} comparisons" in TEXT
    assert f"in {note['num_cells']} settings" in TEXT
    assert f"{len(note['falls_short'])} figures miss" in TEXT
    num_cautious = sum("cautious" in told for told in note["falls_short"])
    assert f"{num_cautious} are cautious" in TEXT


def test_links_lead_somewhere() -> None:
    anchors = {anchor_of(line) for line in TEXT.splitlines() if line.startswith("#")}
    links = [link for link in LINK.findall(TEXT) if "://" not in link]
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        if not file:
            assert anchor in anchors, link
            continue
        assert (PAGE.parent / file).is_file(), link
        if anchor:
            headings = (PAGE.parent / file).read_text(encoding="utf-8").splitlines()
            assert anchor in {anchor_of(line) for line in headings if line.startswith("#")}, link


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().casefold())
    return words.replace(" ", "-")
