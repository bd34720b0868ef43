"""How reports tell blind votes."""

import re

from rich.console import Console

from data.votes import Choice
from evals.report import words
from evals.report.notes import vote_notes
from evals.results import ComparisonResult, VoteResult
from evals.table import print_result
from evals.votes import summarise_votes
from tests.data.cast_votes import cast
from tests.evals.report import factories, test_markdown, test_page

WON: list[Choice] = ["a"] * 8
CHOICES: list[Choice] = [*WON, "b", "tie", "both_bad", "both_bad"]


def results(*, own: str = "demo-medical", other: str = "mistral-small-2503") -> list[VoteResult]:
    """Twelve votes of which eight are won, and a single one between two others."""
    votes = [
        cast(
            f"Prompt {n}?",
            number=n,
            choice=choice,
            models=(own, other),
            client=f"client {n % 4}",
            shown_first="ab"[n % 2],
        )
        for n, choice in enumerate(CHOICES)
    ]
    votes.append(cast(models=(other, "base"), choice="b"))
    return summarise_votes(votes, confidence=0.95, num_resamples=1000, seed=1, own=own)


def with_votes(result: ComparisonResult, votes: list[VoteResult]) -> ComparisonResult:
    return {**result, "votes": votes}


def html_of(votes: list[VoteResult]) -> str:
    result, evidence = factories.minimal()
    return test_page.render((with_votes(result, votes), evidence))


def test_the_page_has_a_section_of_votes() -> None:
    html = html_of(results())
    outline = test_page.outline_of(html)
    assert outline.open == []
    assert "#votes" in outline.links
    assert all(header.get("scope") in ("col", "row") for header in outline.headers)
    assert html.index('id="tasks"') < html.index('id="votes"') < html.index('id="cost"')
    text = test_page.text_of(html[html.index('id="votes"') : html.index('id="cost"')])
    share = results()[0]["interval"]
    assert share is not None
    low, high = (words.percent(bound) for bound in share)
    assert f"demo-medical against mistral-small-2503 12 8 1 1 2 79.2 {low} to {high} 0.039" in text
    assert "▲ demo-medical preferred" in text
    assert (
        "12 votes on 12 prompts by 4 voters, 2026-03-01 to 2026-03-12; demo-medical stood first "
        "in 6." in text
    )
    assert "base against mistral-small-2503 1 1 0 0 0 100.0 – ? not settled" in text
    assert "The verdict above does not rest on these votes." in text


def test_a_result_without_votes_has_no_section() -> None:
    result, evidence = factories.minimal()
    html = test_page.render((result, evidence))
    assert "What people preferred" not in html
    assert "#votes" not in html
    assert "What people preferred" not in test_markdown.render(result)


def test_markdown_tells_the_same() -> None:
    result, _ = factories.minimal()
    text = test_markdown.render(with_votes(result, results()))
    assert "## What people preferred" in text
    row = r"| **demo-medical** against mistral-small-2503 | 12 | 8 | 1 | 1 | 2 | 79.2 ("
    assert row in text
    assert "| **base** against mistral-small-2503 | 1 | 1 | 0 | 0 | 0 | 100.0 | not known |" in text
    assert "- demo-medical against mistral-small-2503: 12 votes on 12 prompts" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


def test_names_of_models_do_not_act_as_markup() -> None:
    evil = factories.EVIL.replace("\ud800", "")
    votes = results(own=f"ours {evil}", other=f"[red]theirs {evil}")
    html = html_of(votes)
    assert html.count("<script>") == 1
    assert html.count("ours &lt;script&gt;") > 2
    text = test_markdown.render(with_votes(factories.minimal()[0], votes))
    assert not re.search(r"(?<!\\)<script", text)
    console = Console(width=80, record=True)
    print_result(with_votes(factories.minimal()[0], votes), console)
    assert "[red]theirs" in " ".join(console.export_text().split())


def test_the_table_has_a_line_for_each_pair_and_tells_warnings_once() -> None:
    votes = results()
    told = "All votes came with one key"
    votes = [{**one, "warnings": [told]} for one in votes]
    console = Console(width=100, record=True, highlight=False)
    print_result(with_votes(factories.minimal()[0], votes), console)
    text = console.export_text()
    (line,) = [line for line in text.splitlines() if line.startswith("demo-medical against")]
    cells = line.removeprefix("demo-medical against mistral-small-2503").split()
    assert cells[:4] == ["8", "1", "3", "0.792"]
    assert cells[-1] == "better"
    assert text.count(told) == 1
    assert text.index("blind votes") < text.index("verdict  better")


def test_the_table_fits_a_terminal() -> None:
    console = Console(width=80, record=True, highlight=False)
    print_result(with_votes(factories.minimal()[0], results()), console)
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert any(line.startswith("demo-medical against ") for line in lines)


def test_notes_warn_and_name_the_methods() -> None:
    one, single = results()
    texts = [note.text for note in vote_notes({**one, "warnings": ["Doubt it."]})]
    assert texts[1] == "Tango's score interval; exact McNemar test."
    assert [note.is_warning for note in vote_notes({**one, "warnings": ["Doubt it."]})] == [
        False,
        False,
        True,
    ]
    assert [note.text for note in vote_notes(single)] == [
        "1 vote on 1 prompt by 1 voter, 2026-03-01; base stood first in 0."
    ]
