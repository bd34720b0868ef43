from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from configs.load import load_config
from data.conversation import Message, Reject, SourceRows
from data.model_source import load_tokenizer
from data.report import (
    NUM_ANSWERS_SHOWN,
    NUM_BINS,
    NUM_REJECTS_SHOWN,
    PreparedReport,
    Span,
    answer_bars,
    length_bars,
    supervised_spans,
    write_report,
)
from data.template import Rendered, load_training_template, render_conversations
from tests.configs.minimal import write_config

HOSTILE = "</pre><script>alert('1')</script><img src=x onerror=\"alert(2)\"> & é 日"
LOADING_ATTRIBUTES = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def inside(self, tag: str) -> list[str]:
        return [text for parent, text in self.texts if parent == tag]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_checkpoint)


def sample(tokenizer: PreTrainedTokenizerBase, question: str, *answers: str) -> Rendered:
    messages: list[Message] = []
    for answer in answers:
        messages += [{"role": "user", "content": question}]
        messages += [{"role": "assistant", "content": answer}]
    template = load_training_template(tokenizer)
    (one,) = render_conversations([messages], tokenizer, template=template, max_length=10_000)
    return one


@pytest.fixture
def report(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> PreparedReport:
    """A report in which every text that comes from outside is hostile."""
    config = load_config(write_config(tmp_path)).model_copy(update={"description": HOSTILE})
    return PreparedReport(
        config=config,
        source=SourceRows(conversations=[], num_read=1234, licence=HOSTILE, attribution=HOSTILE),
        facts={
            "num_read": 1234,
            "num_rows": {"train": 1000, "validation": 50, "test": 100},
            "num_rejects": 80,
            "dropped": {HOSTILE: 4},
            "num_tokens": {"train": 50_000, "validation": 2500, "test": 5000},
            "supervised_share": 0.256,
            "num_truncated": 3,
            "num_unanswered_turns_cut": 2,
        },
        rejects=[Reject(where=HOSTILE, reason=HOSTILE)] * 80,
        answers=Counter({HOSTILE: 60, "b": 30}),
        lengths={"train": [10, 20, 30], "validation": [40], "test": [50]},
        samples=[sample(tokenizer, HOSTILE, HOSTILE), sample(tokenizer, "q", "a 1", "a 2")],
    )


@pytest.fixture
def html(report: PreparedReport, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> str:
    write_report(tmp_path / "report.html", report, tokenizer)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not LOADING_ATTRIBUTES & page.attributes
    assert not {name for name in page.attributes if name.startswith("on")}
    for loading in ("http://", "https://", "url(", "@import"):
        assert loading not in html


def test_hostile_text_is_shown_as_text(html: str) -> None:
    page = Page(html)
    assert "<script" not in html
    assert page.inside("p")[0] == HOSTILE
    assert any(HOSTILE in text for text in page.inside("pre"))
    assert f"left out: {HOSTILE}" in page.inside("td")
    assert f"rejected: {HOSTILE}" in page.inside("td")
    # Each of the first rejects shows its place and its reason.
    assert page.inside("td").count(HOSTILE) == 2 * NUM_REJECTS_SHOWN


def test_what_is_supervised_is_marked(html: str) -> None:
    # The first mark explains the marks.
    assert Page(html).inside("mark") == [
        "Marked",
        f"{HOSTILE}<|im_end|>",
        "a 1<|im_end|>",
        "a 2<|im_end|>",
    ]


def test_every_row_is_accounted_for_on_the_page(html: str) -> None:
    cells = [text.strip() for text in Page(html).inside("td")]
    for name, count in (
        ("used for train", "1,000"),
        ("used for validation", "50"),
        ("used for test", "100"),
        (f"left out: {HOSTILE}", "4"),
        (f"rejected: {HOSTILE}", "80"),
    ):
        assert cells[cells.index(name) + 1] == count
    assert "1,234" in cells


def test_the_same_report_is_the_same_file(
    report: PreparedReport, tokenizer: PreTrainedTokenizerBase, html: str, tmp_path: Path
) -> None:
    write_report(tmp_path / "again.html", report, tokenizer)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_a_report_without_rejects_has_no_table_of_them(
    report: PreparedReport, tokenizer: PreTrainedTokenizerBase, html: str, tmp_path: Path
) -> None:
    assert "First rejects" in html
    write_report(tmp_path / "clean.html", replace(report, rejects=[]), tokenizer)
    assert "First rejects" not in (tmp_path / "clean.html").read_text(encoding="utf-8")


def test_spans_put_together_are_the_whole_text(tokenizer: PreTrainedTokenizerBase) -> None:
    rendered = sample(tokenizer, "日本?", "é", "👩‍👩‍👧")
    spans = supervised_spans(rendered, tokenizer)
    assert "".join(span.text for span in spans) == tokenizer.decode(rendered.input_ids)
    assert [span.supervised for span in spans] == [False, True, False, True, False]
    assert spans[1] == Span("é<|im_end|>", supervised=True)


def test_answer_bars_are_relative_to_the_commonest() -> None:
    bars = answer_bars(Counter({"b": 5, "a": 20}))
    assert bars == [("a", 20, 1.0), ("b", 5, 0.25)]
    many = Counter({f"answer {n}": n + 1 for n in range(100)})
    assert [bar.num_rows for bar in answer_bars(many)] == list(
        range(100, 100 - NUM_ANSWERS_SHOWN, -1)
    )


def test_length_bars_count_every_row_once() -> None:
    assert length_bars([1, 2, 2]) == [("1–1", 1, 0.5), ("2–2", 2, 1.0)]
    assert length_bars([48, 1, 2, 3]) == [
        ("1–2", 2, 1.0),
        ("3–4", 1, 0.5),
        *[(f"{2 * n + 1}–{2 * n + 2}", 0, 0.0) for n in range(2, 23)],
        ("47–48", 1, 0.5),
    ]


@pytest.mark.parametrize("longest", [1, 7, 23, 24, 25, 100, 4096])
def test_length_bars_are_few_and_reach_the_longest(longest: int) -> None:
    lengths = list(range(1, longest + 1))
    bars = length_bars(lengths)
    assert len(bars) <= NUM_BINS
    assert sum(bar.num_rows for bar in bars) == longest
    assert int(bars[-1].label.split("–")[1]) >= longest
