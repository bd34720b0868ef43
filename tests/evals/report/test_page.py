import base64
import hashlib
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from evals.evidence import TaskEvidence
from evals.log_bundle import LogBundle
from evals.report import page
from evals.report.page import TEMPLATES, render_report
from evals.results import ComparisonResult
from tests.evals.report import factories

Case = tuple[ComparisonResult, list[TaskEvidence]]
CASES = [factories.realistic, factories.minimal, factories.many, factories.hostile]


def render(case: Case, **more: object) -> str:
    result, evidence = case
    return render_report(
        result,
        config=factories.build_config(),
        evidence=evidence,
        checks=factories.checks(),
        commands=["tunery evaluate demo-medical"],
        **more,  # type: ignore[arg-type]
    )


def text_of(html: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<(style|script)>.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


class Outline(HTMLParser):
    """Tags that do not close, addresses that could load something, headings, header cells."""

    VOID = ("meta", "br", "input", "rect", "line", "path", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.events: list[str] = []
        self.headers: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action") and v]
        self.events += [k for k, _ in attrs if k.startswith("on")]
        if tag == "th":
            self.headers.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def outline_of(html: str) -> Outline:
    outline = Outline()
    outline.feed(html)
    return outline


@pytest.mark.parametrize("build", CASES)
def test_the_page_is_whole_and_loads_nothing(build: Callable[[], Case]) -> None:
    html = render(build())
    outline = outline_of(html)
    assert outline.open == []
    assert not set(outline.tags) & {"link", "img", "iframe", "object"}
    assert outline.tags.count("script") == 1
    assert outline.links
    assert all(link.startswith("#") for link in outline.links)
    assert not re.findall(r"url\(|@import", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize("build", CASES)
def test_headings_descend_by_one_and_header_cells_have_a_scope(build: Callable[[], Case]) -> None:
    outline = outline_of(render(build()))
    levels = [int(tag[1]) for tag in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[:2] == [1, 2]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert outline.headers
    assert all(header.get("scope") in ("col", "row") for header in outline.headers)


def test_texts_of_models_and_names_are_escaped_and_can_be_written() -> None:
    html = render(factories.hostile())
    assert html.count("<script>") == 1
    assert outline_of(html).events == []
    assert "<img" not in html
    assert html.count("&lt;script&gt;") > 20
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", html)
    html.encode("utf-8")


def test_the_script_is_the_one_that_the_policy_allows() -> None:
    html = render(factories.minimal())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script == (TEMPLATES / "filter.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_without_script_the_filter_is_not_shown_and_all_samples_are_there() -> None:
    html = render(factories.minimal())
    assert '<form id="filter" class="filter" hidden>' in html
    samples = html[html.index('id="samples"') : html.index('id="method"')]
    assert samples.count("<article>") == 40
    assert " hidden" not in samples.replace('class="filter" hidden', "")


def test_the_verdict_and_its_reasons_come_first() -> None:
    result, evidence = factories.realistic()
    text = text_of(render((result, evidence)))
    first = text[: text.index("Differences at a glance")]
    assert "Better: +5.0 to +60.0 points on 3 tasks" in first
    assert "Do not promote: demo-medical has become worse outside its domain (refusals)." in first
    for reason in result["reasons"]:
        assert reason in first
    assert "answered 150 of 200 questions right; mistral-small-2503, shown 4 examples, 30." in first


def test_the_forest_has_a_row_for_each_task_and_one_for_all_guards() -> None:
    html = render(factories.realistic())
    forest = html[html.index('id="differences"') : html.index('id="tasks"')]
    assert forest.count("<svg>") == 11 + 3  # with an axis for each of three groups
    assert forest.count("pooled") == 1
    assert "at least −8.1" in text_of(forest)


def test_the_table_tells_scores_clean_rows_and_warnings() -> None:
    html = render(factories.realistic())
    text = text_of(html[html.index('id="tasks"') : html.index('id="guard"')])
    assert "diagnosis to chapter Match; 200 questions, in 163 groups 15.0" in text
    assert "without 12 questions that the rows to train on give away: 188 left" in text
    assert "+57.4 +49.0 to +65.0" in text
    assert "PubMedQA Macro F1; 500 questions" in text
    assert "About 2,140 questions would probably settle it" in text
    assert "⚠ The order decided 34 % of the pairs" in text
    assert "⚠ Judges lean towards longer answers" in text
    assert "knowledge : its package could not be fetched" in text


def test_the_guard_names_what_is_worse() -> None:
    html = render(factories.realistic())
    text = text_of(html[html.index('id="guard"') : html.index('id="cost"')])
    assert "Not held: outside the domain a loss of 5 points or more cannot be ruled out" in text
    assert "Worse on: refusals." in text


def test_what_is_not_known_of_costs_is_said_and_not_invented() -> None:
    html = render(factories.minimal())
    cost = text_of(html[html.index('id="cost"') : html.index('id="samples"')])
    assert "Own machine, a month not known: set evaluation.own_cost" in cost
    assert "not known: set evaluation.baseline.price" in cost
    assert "Capacity of this machine 6,574,500 requests a month" in cost
    known = render(factories.realistic())
    cost = text_of(known[known.index('id="cost"') : known.index('id="samples"')])
    assert "Cheaper from 580,646 requests a month" in cost
    assert "180.00 EUR" in cost
    assert "not known" not in cost


def test_a_break_even_past_the_machines_capacity_is_no_promise() -> None:
    result, evidence = factories.realistic()
    result["cost"]["own_capacity_requests"] = 1000
    html = render((result, evidence))
    assert "at this speed the hosted model stays cheaper" in text_of(html)


def test_samples_keep_the_file_small_and_say_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = factories.realistic()
    monkeypatch.setattr(page, "MAX_SAMPLE_BYTES", 60_000)
    html = render(case)
    samples = html[html.index('id="samples"') : html.index('id="method"')]
    assert len(samples) < 75_000
    shown = [int(n) for n in re.findall(r"the first (\d+) shown", samples)]
    assert shown
    # Every kind of outcome gets its share before any gets more.
    assert max(shown) - min(shown) <= 1
    assert re.search(r"\d+ more in recordings/ and logs/", samples)


def test_long_answers_stay_below_three_megabytes() -> None:
    evidence = [
        factories.build_evidence(
            f"long {n}", num=300, right=(100, 150), miss=lambda n: f"word {n} " * 3000
        )
        for n in range(4)
    ]
    result = factories.build_result([factories.build_task(one) for one in evidence])
    html = render((result, evidence))
    assert 1_000_000 < len(html.encode()) < 3_000_000
    assert "more characters in the recording" in html


def test_what_it_takes_to_repeat_it_is_there() -> None:
    result, evidence = factories.minimal()
    html = render(
        (result, evidence),
        details={"Asked": "2026-11-20"},
        log_bundle=LogBundle(TEMPLATES / "log-viewer", 12_400_000),
    )
    text = text_of(html[html.index('id="repeat"') :])
    for wanted in ("tunery evaluate demo-medical", "inspect-ai", "Seed 17", "Asked 2026-11-20"):
        assert wanted in text
    assert re.search(r"SHA-256 of all prompts [0-9a-f]{64}", text)
    assert "equivalence_margin: 0.03" in text
    assert '<a href="log-viewer/index.html">' in html
    assert "(12 MB)" in text
    assert str(TEMPLATES) not in html


def test_failed_checks_are_told_apart_without_colour() -> None:
    text = text_of(render(factories.minimal()))
    assert "! templates (worth a look): the tokenizer's own" in text
    assert "✓ adapter : 20 of 20" in text


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [0, 1, 2])
def test_words_have_enough_contrast_in_light_dark_and_print(palette: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", blocks[palette]))
    colours = {
        k: v if len(v) == 7 else "#" + 2 * v[1] + 2 * v[2] + 2 * v[3] for k, v in colours.items()
    }
    inks = ("ink", "muted", "accent", "better", "worse", "equivalent", "inconclusive")
    pairs = [(ink, ground) for ink in inks for ground in ("card", "page")]
    pairs += [("ink", "only-theirs"), ("ink", "only-ours"), ("ink", "quiet"), ("muted", "quiet")]
    for ink, ground in pairs:
        dark, light = sorted(luminance(colours[one]) for one in (ink, ground))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
