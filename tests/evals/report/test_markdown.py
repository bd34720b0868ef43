import re

from evals.report.markdown import escape, render_markdown
from evals.results import ComparisonResult
from tests.evals.report import factories


def render(result: ComparisonResult) -> str:
    return render_markdown(
        result,
        config=factories.build_config(),
        checks=factories.checks(),
        commands=["tunery evaluate demo-medical"],
    )


def test_it_tells_what_the_page_tells() -> None:
    result, _ = factories.realistic()
    text = render(result)
    assert text.startswith("# demo-medical: Better: +5.0 to +60.0 points on 3 tasks\n")
    for wanted in (
        "**Do not promote:",
        "| **diagnosis to chapter** (Match; 200 questions, in 163 groups) | 15.0 (10.1 to 19.9) |",
        "… without 12 questions",
        "**Warning:** The order decided 34 % of the pairs",
        "Worse on: refusals.",
        "- knowledge: its package",
        "Cheaper from: 580,646 requests a month",
        "**Worth a look:** templates",
        "    tunery evaluate demo-medical",
    ):
        assert wanted in text


def test_every_row_of_a_table_has_its_columns() -> None:
    for build in (factories.realistic, factories.hostile):
        text = render(build()[0])
        for block in text.split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
            assert len(widths) <= 1


def test_costs_that_are_not_known_say_what_to_set() -> None:
    text = render(factories.minimal()[0])
    assert "- Own machine, a month: not known: set `evaluation.own_cost`" in text
    assert "- Cheaper from: not known: set `evaluation.baseline.price`; not known" in text


def test_names_do_not_act_as_markup() -> None:
    assert escape("a|b\n# c <img> [x](y) @all `z`") == (
        "a\\|b \\# c \\<img\\> \\[x\\](y) \\@all \\`z\\`"
    )
    text = render(factories.hostile()[0])
    assert not re.search(r"(?<!\\)<(script|img|/)", text)
    text.encode("utf-8")
