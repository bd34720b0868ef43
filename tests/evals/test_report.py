import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from configs.schema import RunConfig
from data.conversation import question_and_answer
from evals.asking import Answer
from evals.figures import PAGE_COLOURS, signed
from evals.report import format_p_value, headline, render_report, summary
from evals.results import ZERO_SHOT, ComparisonResult, Evidence, TaskResult, build_result
from evals.targets import Target
from tests.evals.conftest import BuildConfig

EVIL = "<script>alert('x')</script> & \"quoted\" $x_1$"


def answer(n: int, text: str, *, correct: bool) -> Answer:
    return Answer(
        id=f"row/{n}",
        question=f"question {n} {EVIL}",
        reference="right",
        answer=text,
        correct=correct,
        prompt_tokens=1000,
        completion_tokens=2,
        seconds=0.25,
    )


def side(right: set[int], text: str) -> list[Answer]:
    return [
        answer(n, "right" if n in right else f"{text} {n}", correct=n in right) for n in range(40)
    ]


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(
        baseline={
            ZERO_SHOT: side(set(), "talk"),
            "4 examples": side(set(range(30, 40)), "baseline says"),
        },
        variant=side(set(range(2, 36)), f"variant {EVIL}"),
        examples=[question_and_answer("worked question", "worked answer", id="train/1")],
    )


@pytest.fixture
def config(build_config: BuildConfig) -> RunConfig:
    return build_config()


def compare(evidence: Evidence, config: RunConfig) -> ComparisonResult:
    return build_result(
        evidence,
        settings=config.evaluation,
        baseline=Target(f"Base {EVIL}", "http://a/v1", "base"),
        variant=Target("Mine", "http://b/v1", "mine"),
    )


@pytest.fixture
def task(evidence: Evidence, config: RunConfig) -> TaskResult:
    return compare(evidence, config)["tasks"][0]


@pytest.fixture
def html(task: TaskResult, evidence: Evidence, config: RunConfig) -> str:
    return render_report(task, config=config, evidence=evidence)


class Outline(HTMLParser):
    """Tags that do not close, and every attribute that could load something."""

    VOID = ("meta", "link", "br", "img", "input", "use", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(html: str) -> None:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert "script" not in outline.tags
    assert not outline.tags & {"link", "img", "iframe"}
    assert all(link.startswith("#") for link in outline.links)
    assert not re.findall(r"url\((?!#)|@import", html)


def test_texts_of_models_are_escaped(html: str) -> None:
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") > 20


def test_the_verdict_comes_first_and_in_words(html: str, task: TaskResult) -> None:
    assert headline(task) == "Better: +60.0 points"
    low, high = (f"{100 * bound:.1f}" for bound in task["ci95"])
    text = " ".join(html.split())
    assert f"95 % interval +{low} to +{high} points" in text
    assert "exact McNemar test p &lt; 0.001, 40 questions" in text
    assert text.index("Better: +60.0 points</p>") < text.index("<h2>")


def test_the_table_holds_every_prompt(html: str) -> None:
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    rows = [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in body.split("</tr>")[:-1]]
    assert [row.split(" zero-shot ")[-1].split(" compared ")[-1] for row in rows] == [
        "0 / 40 0.0 % 0.0 to 8.8 40,000 80 0.25 s",
        "10 / 40 25.0 % 14.2 to 40.2 40,000 80 0.25 s",
        "34 / 40 85.0 % 70.9 to 92.9 40,000 80 0.25 s",
    ]
    assert "4 examples compared" in rows[1]
    assert "compared" not in rows[0]


def test_samples_are_sorted_by_who_won(html: str) -> None:
    won = html[html.index("Won by the variant") : html.index("Lost by the variant")]
    lost = html[html.index("Lost by the variant") : html.index("Wrong on both sides")]
    both = html[html.index("Wrong on both sides") : html.index("What was compared")]
    # Won: 2 to 29, lost: 36 to 39, both wrong: 0 and 1.
    assert "(28, the first 10 shown)" in won
    assert re.findall(r"<h3>row/(\d+)</h3>", won) == [str(n) for n in range(2, 12)]
    assert "baseline says 2<" in won
    assert re.findall(r"<h3>row/(\d+)</h3>", lost) == ["36", "37", "38", "39"]
    assert re.findall(r"<h3>row/(\d+)</h3>", both) == ["0", "1"]


def test_an_empty_group_and_an_empty_answer_say_so(evidence: Evidence, config: RunConfig) -> None:
    silent = [replace(a, answer=" ", correct=False) for a in evidence.variant]
    changed = replace(evidence, variant=silent)
    html = render_report(compare(changed, config)["tasks"][0], config=config, evidence=changed)
    won = html[html.index("Won by the variant") : html.index("Lost by the variant")]
    assert "None." in won
    assert "no answer" in html
    assert "Worse: −25.0 points" in html


def test_the_plots_are_svg_in_the_pages_colours(html: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(plots) == 2
    texts = []
    for plot in plots:
        tree = ElementTree.fromstring(plot)
        texts.append([text for text in tree.itertext() if text.strip()])
        assert not any(drawn in plot for drawn in PAGE_COLOURS)
        assert "var(--variant)" in plot
    assert "85.0 %" in texts[0]
    # A name is no formula, and no markup.
    assert f"Base {EVIL}, 4 examples" in texts[0]
    assert "+60.0 points" in texts[1]


def test_the_same_answers_render_the_same_page(
    task: TaskResult, evidence: Evidence, config: RunConfig, html: str
) -> None:
    assert render_report(task, config=config, evidence=evidence) == html


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("better", "not explained by the choice of questions"),
        ("worse", "not explained by the choice of questions"),
        ("equivalent", "less than 3.0 points"),
        ("inconclusive", "do not settle it"),
    ],
)
def test_each_verdict_is_explained(task: TaskResult, verdict: str, words: str) -> None:
    changed = TaskResult(**{**task, "verdict": verdict})  # type: ignore[typeddict-item]
    assert words in summary(changed)
    assert "Mine answered 34 of 40" in summary(changed)
    assert "shown 4 examples, 10." in summary(changed)


def test_numbers_are_written_for_people() -> None:
    assert [format_p_value(p) for p in (0.0, 0.00099, 0.0123, 1.0)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.012",
        "p = 1.000",
    ]
    assert [signed(x) for x in (3.14, -3.14, 0.04, -0.04)] == ["+3.1", "−3.1", "0.0", "0.0"]
