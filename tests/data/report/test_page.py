"""The page as a browser would read it, over facts in which every outside text is hostile."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from html.parser import HTMLParser
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import PersonalDataKind
from configs.load import load_config
from configs.schema import RunConfig
from data.conversation import Reject
from data.report.notes import build_notes, format_percent, format_setting
from data.report.page import (
    KIND_NAMES,
    Piece,
    histogram,
    mark_shared,
    row_parts,
    ticks,
    write_report,
)
from data.steps.render_rows import Span
from tests.configs.minimal import write_config

HOSTILE = "</pre><script>alert('1')</script><img src=x onerror=\"alert(2)\"> {{ 7 * 7 }} & é 日"
LOADING_ATTRIBUTES = {"src", "srcset", "data", "action", "poster", "background"}
Facts = dict[str, Any]

FACTS: Facts = {
    "sources": [
        {
            "number": 0,
            "label": f"rows {HOSTILE}",
            "kind": "files",
            "licence": HOSTILE,
            "attribution": HOSTILE,
            "told": HOSTILE,
            "missing_test_ids": [],
            "revision": None,
            "is_evaluation_task": False,
            "weight": 2.5,
            "num_read": 2000,
            "num_rejects": 80,
            "dropped": {HOSTILE: 70},
            "num_rows": {"train": 1600, "validation": 50, "test": 200},
        },
        {
            "number": 1,
            "label": "second",
            "kind": "hub",
            "licence": "not stated",
            "attribution": "",
            "told": "",
            "missing_test_ids": [],
            "revision": HOSTILE,
            "is_evaluation_task": False,
            "weight": 1.0,
            "num_read": 234,
            "num_rejects": 0,
            "dropped": {},
            "num_rows": {"train": 234, "validation": 0, "test": 0},
        },
        {
            "number": 2,
            "label": "task",
            "kind": "files",
            "licence": "MIT",
            "attribution": "",
            "told": "",
            "missing_test_ids": [],
            "revision": None,
            "is_evaluation_task": True,
            "weight": 1.0,
            "num_read": 300,
            "num_rejects": 0,
            "dropped": {},
            "num_rows": {"train": 0, "validation": 0, "test": 0},
        },
    ],
    "num_read": 2234,
    "num_rows": {"train": 1834, "validation": 50, "test": 200},
    "num_rejects": 80,
    "reject_reasons": {HOSTILE: 77, "empty": 2, "not shown": 1},
    "dropped": {HOSTILE: 70},
    "num_tokens": {"train": 50_000, "validation": 2_500, "test": 5_000},
    "supervised_share": 0.256,
    "num_truncated": 3,
    "num_unanswered_turns_cut": 2,
    "num_preference_pairs": 4,
    "duplicates": {
        "num_exact_rows": 5,
        "num_exact_clusters": 3,
        "num_near_clusters": 20,
        "num_near_rows": 55,
        "num_ids_given_twice": 6,
        "largest": [
            {
                "kind": "near",
                "num_rows": 12,
                "side": "train",
                "where": [HOSTILE, "rows.jsonl:3"],
                "texts": [HOSTILE, "the second text"],
            },
            {
                "kind": "exact",
                "num_rows": 2,
                "side": "test",
                "where": ["rows.jsonl:8", "rows.jsonl:9"],
                "texts": ["the equal text"],
            },
        ],
    },
    "split": {"num_units": 900, "largest_unit": 12, "official": ["test"]},
    "contamination": {
        "ngram": 13,
        "dirty_share": 0.8,
        "max_share": 0.05,
        "sets": [
            {"label": "test rows", "num_rows": 200, "num_known": 3, "num_overlapping": 40},
            {"label": HOSTILE, "num_rows": 300, "num_known": 0, "num_overlapping": 0},
        ],
        "pairs": [
            {
                "set": "test rows",
                "test": HOSTILE,
                "train": "rows.jsonl:70",
                "kind": "copied words",
                "known": True,
                "coverage": 0.93,
                "answer_coverage": 0.0,
                "num_shared_words": 4,
                "shared_text": "a grave and rare",
                "test_text": f"{HOSTILE} It is A grave, and  rare case.",
                "train_text": f"a grave - and rare {HOSTILE}",
            },
            {
                "set": "test rows",
                "test": "rows.jsonl:5",
                "train": "rows.jsonl:6",
                "kind": "nearly the same question",
                "known": True,
                "coverage": None,
                "answer_coverage": None,
                "num_shared_words": 9,
                "shared_text": f"beyond the cut {HOSTILE}",
                "test_text": "only the beginning",
                "train_text": "only the beginning of it",
            },
        ],
    },
    "personal_data": {
        "action": "report",
        "kinds": {"email": 3, "phone": 0},
        "num_rows": 2,
        "examples": [{"where": HOSTILE, "kind": "email", "redacted": "a…@e….com"}],
    },
    "answers": {
        "num_different": 22,
        "commonest": [{"text": HOSTILE, "num_rows": 100}, {"text": "b", "num_rows": 25}],
        "largest_share": 0.048,
    },
    "lengths": {
        "bin_width": 10,
        "bins": {"train": [0, 1800, 34], "validation": [50, 0, 0], "test": [0, 100, 100]},
        "median": 15,
        "p95": 20,
        "longest": 30,
    },
    "packing": {"capacity": 64, "num_packs": 120, "efficiency": 0.981},
    "model": HOSTILE,
    "max_length": 64,
}
REJECTS = [Reject(where=HOSTILE, reason=HOSTILE)] * 3 + [Reject(where="r:1", reason="empty")] * 2
SAMPLES = [
    [
        Span(f"<|im_start|>user\n{HOSTILE}<|im_end|>\n<|im_start|>assistant\n", False),
        Span(f"{HOSTILE}<|im_end|>", True),
        Span("\n", False),
    ],
    [Span("\n[INST] q [/INST]", False), Span(" a</s>", True)],
]


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def inside(self, tag: str) -> list[str]:
        return [text for parent, text in self.texts if parent == tag]

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]

    @property
    def text(self) -> str:
        """What can be read, with white space folded."""
        words = " ".join(text for parent, text in self.texts if parent not in ("style", "title"))
        return " ".join(words.split())


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(write_config(tmp_path)).model_copy(update={"description": HOSTILE})


@pytest.fixture
def facts() -> Facts:
    return deepcopy(FACTS)


@pytest.fixture
def page(config: RunConfig, tmp_path: Path) -> Callable[..., Page]:
    def build(
        facts: Facts, rejects: list[Reject] = REJECTS, samples: list[list[Span]] = SAMPLES
    ) -> Page:
        file = tmp_path / "report.html"
        # As the command does it: the facts as they come back from facts.json.
        write_report(file, config, json.loads(json.dumps(facts)), rejects, samples)
        return Page(file.read_text(encoding="utf-8"))

    return build


def test_the_page_loads_nothing_and_runs_nothing(page: Callable[..., Page], facts: Facts) -> None:
    built = page(facts)
    assert built.open == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(built.tags)
    names = {name for name, _ in built.attributes}
    assert not LOADING_ATTRIBUTES & names
    assert not {name for name in names if name.startswith("on")}
    assert all(value.startswith("#") for value in built.values("href"))
    assert not any(sign in style for style in built.inside("style") for sign in ("url(", "@import"))


def test_every_link_leads_to_a_part_of_the_page(page: Callable[..., Page], facts: Facts) -> None:
    built = page(facts)
    ids = built.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in built.values("href")} <= set(ids)


def numbered(value: object, numbers: Iterator[int]) -> object:
    """The facts with a number behind each hostile text, so that each can be looked for."""
    if isinstance(value, dict):
        return {key: numbered(one, numbers) for key, one in value.items()}
    if isinstance(value, list):
        return [numbered(one, numbers) for one in value]
    if isinstance(value, str) and HOSTILE in value:
        return value.replace(HOSTILE, f"{HOSTILE} no{next(numbers)}.")
    return value


def test_hostile_text_is_shown_as_text(page: Callable[..., Page], facts: Facts) -> None:
    numbers = count()
    told = numbered(facts, numbers)
    built = page(told)
    num_texts = next(numbers)
    assert num_texts > 12
    folded = " ".join(HOSTILE.split())
    assert [n for n in range(num_texts) if f"{folded} no{n}." not in built.text] == []
    assert built.text.count(f"left out: {folded}") == 1
    assert built.inside("summary").count(f"{HOSTILE} ") == 1  # a reason


def test_every_row_is_accounted_for_on_the_page(page: Callable[..., Page], facts: Facts) -> None:
    cells = [text.strip() for text in page(facts).inside("td") if text.strip()]
    for name, num_rows in (
        ("used for train", "1,834"),
        ("used for validation", "50"),
        ("used for test", "200"),
        (f"left out: {HOSTILE}", "70"),
        ("rejected", "80"),
        ("read from the sources", "2,234"),
    ):
        assert cells[cells.index(name) + 1] == num_rows
    assert sum(part.num_rows for part in row_parts(facts)) == facts["num_read"]


@pytest.mark.parametrize("num_lost", [-3, 7])
def test_rows_that_nothing_accounts_for_are_told_first(
    page: Callable[..., Page], facts: Facts, num_lost: int
) -> None:
    facts["num_read"] += num_lost
    assert row_parts(facts)[-1] == ("not accounted for", num_lost, "lost")
    first = build_notes(facts)[0]
    assert (first.level, first.text) == ("wrong", f"{num_lost} rows are not accounted for.")
    assert "not accounted for" in page(facts).text


def test_what_is_supervised_is_marked_and_control_tokens_are_set_apart(
    page: Callable[..., Page], facts: Facts
) -> None:
    facts["contamination"]["pairs"] = []
    built = page(facts)
    # The first mark explains the marks.
    assert built.inside("mark") == ["Marked", HOSTILE, "<|im_end|>", " a", "</s>"]
    spans = built.inside("span")
    for token in ("<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"):
        assert token in spans
    # A first line break survives: a browser drops one that stands right behind <pre>.
    assert "\n" in built.inside("code")


def test_the_shared_words_of_a_contaminated_row_are_marked(
    page: Callable[..., Page], facts: Facts
) -> None:
    built = page(facts)
    marks = built.inside("mark")
    assert "A grave, and  rare" in marks
    assert "a grave - and rare" in marks
    # A stretch beyond the cut is shown below.
    assert f"beyond the cut {HOSTILE}" in marks
    headings = [" ".join(text.split()) for text in built.inside("h4")]
    assert "Copied words: 93.0 % of the question's, 4 in a row" in headings
    assert "Nearly the same question" in headings


def test_shared_words_are_found_whatever_their_case_and_signs() -> None:
    assert mark_shared("He said: Stop, now!", "said stop now") == [
        Piece("He ", False),
        Piece("said: Stop, now", True),
        Piece("!", False),
    ]
    assert mark_shared("stop now", "STOP now") == [Piece("stop now", True)]
    assert mark_shared("stop", "stop now") == [Piece("stop", False)]
    assert mark_shared("stop", "") == [Piece("stop", False)]
    assert mark_shared("nonstop now", "stop now") == [Piece("nonstop now", False)]


def test_a_stretch_that_is_cut_is_marked_as_far_as_both_go() -> None:
    shared = "one two three four five six"
    # The text ends within the stretch, once within a word.
    assert mark_shared("zero one two three four fi", shared)[1:] == [
        Piece("one two three four", True),
        Piece(" fi", False),
    ]
    assert mark_shared("zero one two three four", shared)[1:] == [Piece("one two three four", True)]
    # The stretch ends within a word of the text.
    assert mark_shared("one two three four five", "one two three four fi")[0] == Piece(
        "one two three four", True
    )
    # The longest of several places; words that only begin like the stretch are none.
    assert mark_shared("one two, one two three", "one two three") == [
        Piece("one two, ", False),
        Piece("one two three", True),
    ]
    assert mark_shared("one two three four and other words", shared) == [
        Piece("one two three four and other words", False)
    ]


@given(st.text(max_size=40), st.text(max_size=10))
def test_pieces_put_together_are_the_whole_text(text: str, shared: str) -> None:
    pieces = mark_shared(text, shared)
    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.marked for piece in pieces) <= 1


def test_sources_tell_licence_shape_and_revision(page: Callable[..., Page], facts: Facts) -> None:
    text = page(facts).text
    assert "weight 2.5" in text
    assert "evaluation only" in text
    assert "Understood as" in text
    facts["sources"] = facts["sources"][1:2]
    assert "weight" not in page(facts).text


def test_personal_data_is_shown_in_part_only(page: Callable[..., Page], facts: Facts) -> None:
    built = page(facts)
    assert "a…@e….com" in built.inside("code")
    assert "names were not looked for" in built.text
    facts["personal_data"]["kinds"]["name"] = 0
    assert "names were not looked for" not in page(facts).text
    facts["personal_data"]["kinds"] = {}
    assert "Personal data Not looked for." in page(facts).text


def test_all_kinds_of_personal_data_have_a_name() -> None:
    assert set(KIND_NAMES) == set(PersonalDataKind.__args__)  # type: ignore[attr-defined]


def test_rejects_stand_by_reason_with_their_counts(page: Callable[..., Page], facts: Facts) -> None:
    built = page(facts)
    assert f"{' '.join(HOSTILE.split())} (77)" in built.text
    assert "empty (2)" in built.text
    assert "1 more reasons and all places stand in rejects.jsonl." in built.text
    facts |= {"num_rejects": 0, "reject_reasons": {}, "num_read": facts["num_read"] - 80}
    clean = page(facts, [])
    assert "Rejects" not in clean.text
    assert "#rejects" not in clean.values("href")


def test_the_same_report_is_the_same_file(config: RunConfig, facts: Facts, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.html", "two.html")]
    for file in files:
        write_report(file, config, facts, REJECTS, SAMPLES)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_page_of_the_least_that_there_can_be(page: Callable[..., Page], facts: Facts) -> None:
    facts["num_rows"] = {"train": 1, "validation": 0, "test": 0}
    facts |= {"num_read": 1, "num_rejects": 0, "reject_reasons": {}, "dropped": {}}
    facts["duplicates"]["largest"] = []
    facts["contamination"] |= {"sets": [], "pairs": []}
    facts["answers"]["commonest"] = []
    facts["lengths"]["bins"] = {"train": [1], "validation": [0], "test": [0]}
    built = page(facts, [], [])
    assert built.open == []
    assert built.values("role").count("img") == 1  # sides without rows have no histogram


def note_texts(facts: Facts, level: str) -> list[str]:
    return [note.text for note in build_notes(facts) if note.level == level]


def test_notes_name_what_is_worth_a_look(facts: Facts) -> None:
    assert note_texts(facts, "wrong") == []
    assert note_texts(facts, "look") == [
        f"3.6 % of the rows are rejected; most often (77): {HOSTILE}.",
        "3 of 200 test rows (1.5 %) are known from rows for training; the run stops above 5 %.",
        "2 rows with personal data, which stays in; data.personal_data.action can mask it or drop "
        "the rows.",
        "The licence of second is not stated.",
    ]
    assert note_texts(facts, "fine") == [
        "All 2,234 rows that were read are accounted for.",
        f"None of the 300 rows of {HOSTILE} is known from rows for training.",
    ]


def test_notes_on_clean_data_find_nothing_to_look_at(facts: Facts) -> None:
    facts["num_read"] -= 80
    facts |= {"num_rejects": 0, "reject_reasons": {}}
    facts["contamination"]["sets"][0]["num_known"] = 0
    facts["personal_data"]["action"] = "mask"
    facts["sources"][1]["licence"] = "MIT"
    assert {note.level for note in build_notes(facts)} == {"fine"}


@pytest.mark.parametrize(
    ("path", "value", "level", "told"),
    [
        (("contamination", "sets", 0, "num_known"), 11, "wrong", "11 of 200 test rows (5.5 %)"),
        (("contamination", "sets", 0, "num_known"), 10, "look", "10 of 200 test rows (5.0 %)"),
        (("answers", "largest_share"), 0.5, "look", "One answer stands in 50.0 % of the rows"),
        (("answers", "num_different"), 1, "wrong", "All rows have the same answer"),
        (("num_truncated",), 21, "look", "21 rows (1.0 %) lost turns to stay within"),
        (("personal_data", "kinds"), {}, "look", "Personal data was not looked for."),
        (("personal_data", "num_rows"), 0, "fine", "No personal data was found."),
        (("personal_data", "num_rows"), 1, "look", "1 row with personal data"),
        (("personal_data", "action"), "drop", "fine", "and were rejected for it"),
        (("sources", 0, "missing_test_ids"), ["7", "8"], "look", "2 listed test ids of"),
        (("num_rows",), {"train": 1964, "validation": 50, "test": 70}, "look", "Only 70 rows"),
    ],
)
def test_each_note_appears_where_its_fact_calls_for_it(
    facts: Facts, path: tuple[str | int, ...], value: object, level: str, told: str
) -> None:
    assert not any(told in text for text in note_texts(facts, level))
    place: Any = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(told in text for text in note_texts(facts, level)), build_notes(facts)


def test_percentages_never_round_to_a_wrong_extreme() -> None:
    shares = [0, 1e-9, 0.00099, 0.001, 0.0149, 0.5, 0.999, 0.9999, 1]
    assert [format_percent(share) for share in shares] == [
        *("0 %", "under 0.1 %", "under 0.1 %", "0.1 %", "1.5 %", "50.0 %"),
        *("99.9 %", "over 99.9 %", "100 %"),
    ]
    assert [format_setting(share) for share in (0.05, 0.8, 0.125, 1)] == [
        *("5 %", "80 %", "12.5 %", "100 %"),
    ]


def test_a_histogram_counts_every_row_once_against_its_own_highest_bar() -> None:
    lengths = FACTS["lengths"]
    bars = histogram(lengths, "test")
    assert [(bar.first, bar.last, bar.num_rows, bar.height) for bar in bars] == [
        (1, 10, 0, 0.0),
        (11, 20, 100, 100.0),
        (21, 30, 100, 100.0),
    ]
    assert max(bar.height for bar in histogram(lengths, "train")) == 100


@given(st.integers(1, 2_000_000))
def test_ticks_are_few_round_and_on_the_axis(end: int) -> None:
    marks = ticks(end)
    assert 2 <= len(marks) <= 6 or end == 1
    assert marks[0] == (0, 0)
    assert all(mark.at == 100 * mark.value / end <= 100 for mark in marks)
    steps = {later.value - mark.value for mark, later in pairwise(marks)}
    assert len(steps) <= 1
    assert all(str(step).strip("0") in ("1", "2", "5") for step in steps)
