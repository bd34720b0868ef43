"""Copied words of evaluation rows against plain Python, and what may not count as copied."""

import json
import os
import pickle
import random
from dataclasses import fields
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data.copies.contamination import (
    MAX_ROWS_PER_NGRAM,
    EvaluationIndex,
    Hits,
    Overlap,
    SharedRun,
    longest_shared_run,
    summarize,
)
from data.copies.word_ngrams import Words, hash_ngrams, split_words, take_rows, template_ngrams

Row = list[tuple[bool, str]]
Run = tuple[str, ...]
Runs = list[tuple[Run, list[int], bool]]


def words_of(rows: list[Row]) -> Words:
    return split_words(
        [text for row in rows for _, text in row],
        rows=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
        is_question=np.array([asked for row in rows for asked, _ in row], bool),
        num_rows=len(rows),
    )


def asked(*rows: tuple[str, str]) -> list[Row]:
    return [[(True, question), (False, answer)] for question, answer in rows]


def find_overlaps(
    tested: list[Row],
    trained: list[Row],
    *,
    ngram: int = 5,
    template: np.ndarray | None = None,
    batch_rows: int = 1000,
) -> list[Overlap]:
    index = EvaluationIndex.build(words_of(tested), ngram=ngram, template=template)
    hits = [
        index.scan(
            words_of(trained[start : start + batch_rows]),
            np.arange(start, min(start + batch_rows, len(trained))),
        )
        for start in range(0, len(trained), batch_rows)
    ]
    return summarize(index, hits, dirty_share=0.8)


class Expected(NamedTuple):
    coverage: float
    answer_coverage: float
    train_row: int | None


def runs_of(row: Row, *, ngram: int, template: set[Run]) -> Runs:
    """Every n-gram that counts: its words, where in the row they stand, whether it is asked."""
    found, before = [], 0
    for is_question, text in row:
        words = text.split()
        starts = range(max(0, len(words) - 2)) if len(words) >= 3 else range(bool(words))
        hidden = {
            start + place
            for start in starts
            for place in range(3)
            if tuple(words[start : start + 3]) in template
        }
        places = [place for place in range(len(words)) if place not in hidden]
        if len(places) >= ngram:
            for start in range(len(places) - ngram + 1):
                run = places[start : start + ngram]
                own = tuple(words[place] for place in run)
                found.append((own, [before + place for place in run], is_question))
        elif places and is_question:
            found.append((tuple(words), [before + place for place in places], True))
        before += len(words)
    return found


def copied_words(runs: Runs, held: set[Run], *, asked: bool) -> tuple[int, int]:
    """How many words of a row's questions (or answers) are copied, and how many count."""
    own = [(run, places) for run, places, is_question in runs if is_question == asked]
    copied = {place for run, places in own if run in held for place in places}
    return len(copied), len({place for _, places in own for place in places})


def compare_all(tested: list[Runs], trained: list[Runs]) -> dict[int, Expected]:
    train_runs = [{run for run, _, _ in runs} for runs in trained]
    every_run = set().union(*train_runs)
    expected = {}
    for number, runs in enumerate(tested):
        copied, num_words = copied_words(runs, every_run, asked=True)
        in_answers, num_in_answers = copied_words(runs, every_run, asked=False)
        answer = in_answers / num_in_answers if num_in_answers else 0.0
        by_row = [copied_words(runs, held, asked=True)[0] for held in train_runs]
        if copied or in_answers:
            expected[number] = Expected(
                copied / num_words if num_words else answer,
                answer,
                by_row.index(max(by_row)) if copied else None,
            )
    return expected


def copying_rows(rng: random.Random, num_rows: int, passages: list[list[str]]) -> list[Row]:
    """Rows of one to four turns, made of pieces of the passages and of words of their own."""
    rows: list[Row] = []
    for number in range(num_rows):
        row: Row = []
        for turn in range(rng.choice([1, 2, 2, 4])):
            words: list[str] = []
            for _ in range(rng.choice([0, 1, 1, 2, 3])):
                passage = rng.choice(passages)
                start = rng.randrange(len(passage))
                words += passage[start : start + rng.randrange(20)]
                words += [f"own{rng.randrange(10**6)}" for _ in range(rng.choice([0, 0, 1, 9]))]
            if rng.random() < 0.5:
                words = ["please", "tell", "me", f"this{number % 3}", *words]
            row.append((turn % 2 == 0, " ".join(words)))
        rows.append(row)
    return rows


@pytest.mark.parametrize("ngram", [2, 5, 13])
@pytest.mark.parametrize("with_template", [False, True])
def test_overlaps_are_those_of_comparing_every_pair(ngram: int, with_template: bool) -> None:
    rng = random.Random(ngram)
    passages = [[f"p{n}w{rng.randrange(25)}" for _ in range(30)] for n in range(60)]
    tested, trained = (copying_rows(rng, num_rows, passages) for num_rows in (60, 400))
    runs: set[Run] = set()
    if with_template:
        runs = {("please", "tell", "me"), ("tell", "me", "this0")}
    openings = words_of([[(True, " ".join(run))] for run in runs])
    template = np.sort(hash_ngrams(openings, 3).hashes)
    found = find_overlaps(tested, trained, ngram=ngram, template=template)
    expected = compare_all(
        [runs_of(row, ngram=ngram, template=runs) for row in tested],
        [runs_of(row, ngram=ngram, template=runs) for row in trained],
    )
    assert {one.eval_row for one in found} == set(expected)
    assert len(found) > 20
    assert len({one.coverage for one in found}) > 10
    assert [one.coverage for one in found] == sorted((one.coverage for one in found), reverse=True)
    for one in found:
        right = expected[one.eval_row]
        assert one.coverage == pytest.approx(right.coverage)
        assert one.answer_coverage == pytest.approx(right.answer_coverage)
        assert one.is_dirty == (one.coverage >= 0.8)
        if right.train_row is not None and ngram > 2:  # of two words, too many rows have them
            assert one.train_row == right.train_row


def test_neither_batches_nor_their_order_matter() -> None:
    rng = random.Random(3)
    passages = [[f"p{n}w{rng.randrange(9)}" for _ in range(30)] for n in range(5)]
    tested, trained = (copying_rows(rng, num_rows, passages) for num_rows in (100, 300))
    together = find_overlaps(tested, trained)
    assert len(together) > 50
    for batch_rows in (1, 7, 100):
        assert find_overlaps(tested, trained, batch_rows=batch_rows) == together
    index = EvaluationIndex.build(words_of(tested), ngram=5)
    hits = [index.scan(words_of([row]), np.array([n])) for n, row in enumerate(trained)]
    rng.shuffle(hits)
    assert summarize(index, pickle.loads(pickle.dumps(hits)), dirty_share=0.8) == together


def test_an_index_built_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(9)
    passages = [[f"p{n}w{rng.randrange(9)}" for _ in range(30)] for n in range(5)]
    tested = words_of(copying_rows(rng, 100, passages))
    whole = EvaluationIndex.build(tested, ngram=5)
    monkeypatch.setattr("data.copies.contamination.BLOCK_WORDS", 40)
    parts = EvaluationIndex.build(tested, ngram=5)
    assert len(whole.word_rows) > 1000
    for field in fields(EvaluationIndex):
        assert np.array_equal(getattr(parts, field.name), getattr(whole, field.name)), field.name


def test_training_on_the_test_set_is_seen_in_every_row() -> None:
    rng = random.Random(4)
    rows = asked(
        *((" ".join(f"q{n}w{rng.randrange(99)}" for _ in range(1 + n)), "yes") for n in range(40))
    )
    found = find_overlaps(rows, [*rows[::-1]], ngram=13)
    assert [(one.coverage, one.is_dirty) for one in found] == [(1.0, True)] * 40
    assert {one.eval_row: one.train_row for one in found} == {n: 39 - n for n in range(40)}
    others = asked(*((f"other {text}", answer) for ((_, text), (_, answer)) in rows))
    assert {one.eval_row for one in find_overlaps(rows, others, ngram=13)} == set(range(12, 40))


def test_short_questions_count_as_a_whole_and_short_answers_never() -> None:
    tested = asked(("what is gout", "an illness"), ("is it so", "yes"))
    assert find_overlaps(tested, asked(("what then", "yes"), ("why", "an illness"))) == []
    assert find_overlaps(tested, asked(("so what is gout", "no"), ("why", "what is gout"))) == []
    found = find_overlaps(tested, asked(("hm", "hm"), ("What is GOUT?", "I do not know")))
    assert found == [
        Overlap(eval_row=0, train_row=1, coverage=1.0, answer_coverage=0.0, is_dirty=True)
    ]


def test_a_copied_long_answer_is_told_and_not_judged() -> None:
    answer = "turn it off and wait a minute then turn it on"
    tested = asked(("my router is dead", answer))
    found = find_overlaps(tested, asked(("hm", "hm"), ("no light at all", f"please {answer}")))
    assert found == [
        Overlap(eval_row=0, train_row=1, coverage=0.0, answer_coverage=1.0, is_dirty=False)
    ]
    # Where there is no question of its own, the answer is what there is to judge.
    found = find_overlaps(asked(("", answer)), asked(("no light at all", answer)))
    assert [(one.coverage, one.is_dirty) for one in found] == [(1.0, True)]


def test_no_ngram_crosses_the_border_of_a_turn() -> None:
    tested = [[(True, "a b c d"), (True, "e f g h"), (False, "i j k l m n")]]
    assert find_overlaps(tested, [[(True, "a b c d e f g h i j k l")]]) == []


def test_a_template_is_not_copied_from_anywhere() -> None:
    ask = "which chapter of the classification does this diagnosis belong to"
    tested = asked(*((f"diagnosis {n} illness {ask}", "A") for n in range(30)))
    trained = asked(*((f"diagnosis {n} illness {ask}", "B") for n in range(20, 60)))
    template = template_ngrams(words_of(trained), ngram=3, more_than_rows=20)
    assert len(find_overlaps(tested, trained)) == 30
    found = find_overlaps(tested, trained, template=template)
    assert {(one.eval_row, one.train_row) for one in found} == {(20 + n, n) for n in range(10)}
    assert {one.coverage for one in found} == {1.0}
    # A question that is all template says nothing about where it comes from.
    assert find_overlaps(asked((ask, "A")), asked((ask, "B")), template=template) == []


def test_what_two_templates_ask_of_one_thing_is_not_the_same() -> None:
    capital, size = "what is the capital of", "how many people live in"
    rows = asked(*((f"{ask} place{n}", f"x{n}") for ask in (capital, size) for n in range(30)))
    templates = [
        template_ngrams(words_of(own), ngram=3, more_than_rows=20) for own in (rows[:30], rows[30:])
    ]
    template = np.union1d(*templates)
    assert len(template) == 6
    assert find_overlaps(rows[:30], rows[30:], template=template) == []
    found = find_overlaps(rows[:30], rows[::-1], template=template)
    assert {one.eval_row: one.train_row for one in found} == {n: 59 - n for n in range(30)}


def test_rows_that_are_not_trained_on_are_passed_over() -> None:
    rows = asked(("a b c d e f", "x"), ("g h i j k l", "x"), ("m n o p q r", "x"))
    index = EvaluationIndex.build(words_of(rows), ngram=5)
    hits = index.scan(words_of(rows), np.array([-1, 700, -1]))
    found = summarize(index, [hits], dirty_share=0.8)
    assert [(one.eval_row, one.train_row) for one in found] == [(1, 700)]


def test_ngrams_of_many_evaluation_rows_count_and_name_a_training_row() -> None:
    num_rows = 3 * MAX_ROWS_PER_NGRAM
    tested = asked(*(("the same six words for all", f"{n}") for n in range(num_rows)))
    trained = asked(("nothing", "x"), ("and the same six words for all", "x"))
    found = find_overlaps(tested, trained)
    assert {one.eval_row for one in found} == set(range(num_rows))
    assert {(one.train_row, one.coverage) for one in found} == {(1, 1.0)}


def test_a_saved_index_finds_the_same(tmp_path: Path) -> None:
    rng = random.Random(6)
    passages = [[f"p{n}w{rng.randrange(9)}" for _ in range(30)] for n in range(5)]
    tested, trained = (copying_rows(rng, num_rows, passages) for num_rows in (50, 50))
    index = EvaluationIndex.build(words_of(tested), ngram=5)
    index.save(tmp_path / "index")
    loaded = EvaluationIndex.load(tmp_path / "index")
    assert isinstance(loaded.hashes, np.memmap)
    words, numbers = words_of(trained), np.arange(50)
    expected = summarize(index, [index.scan(words, numbers)], dirty_share=0.8)
    assert len(expected) > 20
    assert summarize(loaded, [loaded.scan(words, numbers)], dirty_share=0.8) == expected


def test_nothing_is_copied_from_or_into_nothing() -> None:
    rows = asked(("a b c d e f", "x"), ("", ""))
    none = take_rows(words_of(rows), np.array([False, False]))
    empty = EvaluationIndex.build(none, ngram=5)
    assert summarize(empty, [empty.scan(words_of(rows), np.arange(2))], dirty_share=0.8) == []
    index = EvaluationIndex.build(words_of(rows), ngram=5)
    hits: Hits = index.scan(none, np.arange(0))
    assert summarize(index, [hits], dirty_share=0.8) == []
    assert summarize(index, [], dirty_share=0.8) == []


def test_the_longest_shared_run_is_the_one_that_difflib_finds() -> None:
    rng = random.Random(7)
    lengths = set()
    for _ in range(300):
        left, right = (rng.choices("abcd", k=rng.randrange(60)) for _ in range(2))
        match = SequenceMatcher(None, left, right, autojunk=False).find_longest_match()
        found = longest_shared_run([" ".join(left)], [" ".join(right)])
        assert found == SharedRun(match.size, " ".join(left[match.a : match.a + match.size]))
        lengths.add(match.size)
    assert len(lengths) > 5


def test_a_shared_run_lies_within_one_segment_of_each_row() -> None:
    found = longest_shared_run(["a b c", "d e f g"], ["x", "B, C; d e f", "e f g!"])
    assert found == SharedRun(3, "d e f")
    assert longest_shared_run(["a b", "v w x y z"], ["q r s t u", "a b"]) == SharedRun(2, "a b")
    assert longest_shared_run(["a"], ["b"]) == longest_shared_run([], ["b"]) == SharedRun(0, "")


def test_long_texts_are_compared_in_time() -> None:
    rng = random.Random(8)
    copied = [f"w{rng.randrange(3)}" for _ in range(20_000)]
    left, right = ([f"{side}{n % 3}" for n in range(40_000)] for side in "lr")
    left[30_000:30_000] = right[5_000:5_000] = copied
    found = longest_shared_run([" ".join(left)], [" ".join(right)])
    assert found == SharedRun(20_000, " ".join(copied))


@pytest.mark.corpora
def test_an_honest_split_is_clean_and_a_leaking_one_is_not() -> None:
    folder = os.environ.get("TUNERY_CORPORA")
    if not folder:
        pytest.skip("TUNERY_CORPORA is not set")
    papers = json.loads((Path(folder) / "pubmedqa_pqal.json").read_text())
    test_ids = json.loads((Path(folder) / "pubmedqa_test_ids.json").read_text())
    rows = {
        id: asked(("\n".join([*paper["CONTEXTS"], paper["QUESTION"]]), paper["final_decision"]))[0]
        for id, paper in papers.items()
    }
    tested = [row for id, row in rows.items() if id in test_ids]
    trained = [row for id, row in rows.items() if id not in test_ids]
    assert (len(tested), len(trained)) == (500, 500)
    template = template_ngrams(words_of(list(rows.values())), ngram=3, more_than_rows=20)
    assert find_overlaps(tested, trained, ngram=13, template=template) == []
    leaked = find_overlaps(tested, [*trained, *tested[:7]], ngram=13, template=template)
    assert {one.eval_row: one.train_row for one in leaked} == {n: 500 + n for n in range(7)}
    assert all(one.coverage == 1.0 and one.is_dirty for one in leaked)
