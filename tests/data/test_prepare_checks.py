"""What the stage does about copies, leaks, mixtures and personal data, on whole preparations."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.data_schema import (
    ContaminationConfig,
    FilesSource,
    MixturePart,
    MixtureSource,
    PersonalDataConfig,
)
from configs.errors import UserError
from tests.data.preparing import SIDES, PrepareRows, chat, questions

WORDS = [
    first + second
    for first in ("bar", "cel", "dom", "fir", "gol", "hal", "jun", "kel", "lor", "mun")
    for second in ("ab", "ed", "ik", "os", "ut", "an", "el", "ir", "om", "us")
]


def sentences(count: int, *, num_words: int = 20, seed: int = 1) -> list[str]:
    """Texts that have nothing in common."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=num_words)) for _ in range(count)]


def longer_one(text: str) -> str:
    """A text of its own for each text."""
    (other,) = sentences(1, num_words=30, seed=sum(map(ord, text)))
    return other


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# Copies.


def test_near_duplicates_stand_on_one_side_and_are_told(run_prepare: PrepareRows) -> None:
    rows = [
        chat(f"{sentence} {ending}", f"{n} {ending}", id=f"{n}{ending}")
        for n, sentence in enumerate(sentences(60))
        for ending in "abc"
    ]
    run_prepare(rows)
    side_of = {row["id"]: side for side in SIDES for row in run_prepare.rows(side)}
    for n in range(60):
        assert len({side_of[f"{n}{ending}"] for ending in "abc"}) == 1
    assert set(side_of.values()) == set(SIDES)
    duplicates = run_prepare.facts()["duplicates"]
    assert (duplicates["num_near_clusters"], duplicates["num_near_rows"]) == (60, 180)
    clusters = {frozenset(line["rows"]) for line in run_prepare.lines("clusters")}
    assert clusters == {frozenset(f"rows.jsonl:{3 * n + k}" for k in (1, 2, 3)) for n in range(60)}
    shown = duplicates["largest"][0]
    assert shown["kind"] == "near"
    assert len(shown["texts"]) == 3


def test_equal_rows_are_told_as_a_cluster(run_prepare: PrepareRows) -> None:
    facts = run_prepare([*questions(40), *questions(2), *questions(1)])
    assert facts["dropped"] == {"exact duplicate of another row": 3}
    clusters = [line for line in run_prepare.lines("clusters") if line["kind"] == "exact"]
    assert sorted(cluster["rows"] for cluster in clusters) == [
        ["rows.jsonl:1", "rows.jsonl:41", "rows.jsonl:43"],
        ["rows.jsonl:2", "rows.jsonl:42"],
    ]


def test_ids_that_are_given_twice_are_told_apart(run_prepare: PrepareRows) -> None:
    rows = [row | {"id": f"id {n // 2}"} for n, row in enumerate(questions(60))]
    run_prepare([*rows, chat("Which is alone?", "This.", id="alone")])
    ids = [row["id"] for row in run_prepare.all_rows()]
    assert len(set(ids)) == len(ids) == 61
    assert "alone" in ids
    assert {id.rpartition(" #")[0] for id in ids if id != "alone"} == {f"id {n}" for n in range(30)}
    assert run_prepare.facts()["duplicates"]["num_ids_given_twice"] == 60


# Leaks.


def official(run_prepare: PrepareRows, train: list[Any], test: list[Any], **data: Any) -> Any:  # noqa: ANN401
    """Prepare with an official test split."""
    place = run_prepare.place
    source = FilesSource(
        kind="files",
        path=write_lines(place / "train.jsonl", train),
        test_path=write_lines(place / "test.jsonl", test),
    )
    return run_prepare([], source=source, **data)


def test_a_variant_that_trains_on_its_own_test_set_is_stopped_with_the_pairs(
    run_prepare: PrepareRows,
) -> None:
    texts = sentences(40)
    rows = [chat(text, f"answer {n}") for n, text in enumerate(texts)]
    with pytest.raises(UserError) as caught:
        official(run_prepare, rows, rows[:20])
    assert caught.value.what.startswith(
        "20 of 20 test rows (100.0%) are known from the rows to train on; at most 10.0% may be\n"
    )
    pairs = caught.value.what.splitlines()[1:]
    assert len(pairs) == 3
    for pair in pairs:
        number = int(pair.split("train.jsonl:")[1].split()[0])
        assert f"test.jsonl:{number} and train.jsonl:{number} (the same row)" in pair
        assert texts[number - 1] in pair
    assert list(run_prepare.folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda text: text, "the same question"),
        (lambda text: text.upper() + "  ", "the same question"),
        (lambda text: "really " + text, "nearly the same question"),
        (lambda text: f"{longer_one(text)} {text}", "copied words"),
    ],
    ids=["other answer", "other case", "one more word", "inside a longer one"],
)
def test_test_rows_in_other_clothes_are_known(
    run_prepare: PrepareRows,
    change: Callable[[str], str],
    kind: str,
) -> None:
    texts = sentences(40)
    test = [chat(text, "yes") for text in texts[:20]]
    train = [chat(change(text), "no") for text in texts]
    with pytest.raises(UserError, match=rf"20 of 20 test rows .*\n.*\({kind}\)"):
        official(run_prepare, train, test, validation_fraction=1e-9)


def test_below_the_limit_the_pairs_are_kept_and_the_copies_left_out(
    run_prepare: PrepareRows,
) -> None:
    texts = sentences(200)
    test = [chat(text, "yes") for text in texts[:40]]
    train = [chat(text, "no") for text in texts[38:]]
    long = f"{longer_one(texts[0])} {texts[0]}"
    facts = official(
        run_prepare,
        [*train, chat(long, "no")],
        test,
        contamination=ContaminationConfig(max_share=0.1),
        validation_fraction=0.1,
    )
    assert facts["num_rows"]["test"] == 40
    assert {reject["where"] for reject in run_prepare.rejects()} == {
        "train.jsonl:1",
        "train.jsonl:2",
    }
    told = {line["test"]: line for line in run_prepare.lines("contamination")}
    assert {line["kind"] for line in told.values() if line["known"]} == {
        "the same question",
        "copied words",
    }
    assert told["test.jsonl:1"]["train"] == "train.jsonl:163"
    copied = {row["where"]: row["copied_share"] for row in run_prepare.rows("test")}
    assert copied["test.jsonl:1"] == 1.0
    assert copied["test.jsonl:2"] == 0.0
    (own,) = run_prepare.facts()["contamination"]["sets"]
    assert (own["num_rows"], own["num_known"]) == (40, 3)


def test_a_second_preparation_in_one_process_looks_at_its_own_rows(
    run_prepare: PrepareRows,
) -> None:
    texts = sentences(60)
    for first in (0, 20):
        test = [chat(text, "yes") for text in texts[first : first + 20]]
        train = [chat(f"{longer_one(text)} {text}", "no") for text in [*texts[30:35], *texts[40:]]]
        official(run_prepare, train, test, contamination=ContaminationConfig(max_share=1.0))
        (own,) = run_prepare.facts()["contamination"]["sets"]
        # Some of the five copies are validated on, not trained on.
        assert (own["num_known"] > 0) == (first > 0)


def test_rows_of_an_evaluation_task_are_kept_out_of_training(run_prepare: PrepareRows) -> None:
    texts = sentences(100)
    task = FilesSource(
        kind="files",
        path=write_lines(
            run_prepare.place / "task.jsonl", [chat(text, "t") for text in texts[:10]]
        ),
    )
    rows = [chat(text, "a") for text in texts]
    config = ContaminationConfig(tasks=[task])
    with pytest.raises(UserError, match=r"10 of 10 task.jsonl \(100.0%\) are known"):
        run_prepare(rows, contamination=config)
    config = ContaminationConfig(tasks=[task], max_share=1.0)
    facts = run_prepare(rows, contamination=config)
    assert facts["num_read"] == 100
    assert sum(facts["num_rows"].values()) == 90
    asked = {row["messages"][0]["content"] for row in run_prepare.all_rows()}
    assert asked == set(texts[10:])
    sources = run_prepare.facts()["sources"]
    assert [one["is_evaluation_task"] for one in sources] == [False, True]
    assert sources[1]["num_read"] == 10


def test_each_evaluation_set_shows_pairs_of_its_own(run_prepare: PrepareRows) -> None:
    texts = sentences(100)
    task = FilesSource(
        kind="files",
        path=write_lines(
            run_prepare.place / "task.jsonl", [chat(text, "t") for text in texts[:10]]
        ),
    )
    official(
        run_prepare,
        [chat(text, "a") for text in texts],
        [chat(text, "b") for text in texts[10:60]],
        contamination=ContaminationConfig(tasks=[task], max_share=1.0),
    )
    pairs = run_prepare.facts()["contamination"]["pairs"]
    assert {pair["set"] for pair in pairs} == {"test rows", "task.jsonl"}
    assert len(pairs) == 20 + 10


# Mixtures.


def test_a_mixture_has_the_shares_of_its_weights_and_all_held_out_rows(
    run_prepare: PrepareRows,
) -> None:
    texts = sentences(900)
    parts = []
    for name, weight, own in (("one", 1.0, texts[:600]), ("two", 2.0, texts[600:])):
        file = write_lines(run_prepare.place / f"{name}.jsonl", [chat(t, name) for t in own])
        parts.append(MixturePart(source=FilesSource(kind="files", path=file), weight=weight))
    facts = run_prepare([], source=MixtureSource(kind="mixture", parts=parts))
    by_source = [source["num_rows"] for source in run_prepare.facts()["sources"]]
    assert by_source[0]["train"] == pytest.approx(by_source[1]["train"] / 2, abs=1)
    assert by_source[0]["test"] > 1.5 * by_source[1]["test"]
    thinned = facts["dropped"]["thinned to the mixture's weights"]
    assert sum(facts["num_rows"].values()) + thinned == 900
    answers = {row["source"]: row["messages"][-1]["content"] for row in run_prepare.all_rows()}
    assert answers == {0: "one", 1: "two"}


# Personal data.

PERSONAL = [
    chat("Write to ann.lee@example.org about it.", "I wrote to ann.lee@example.org.", id="mail"),
    chat("Which card is it?", "It is 4111 1111 1111 1111.", id="card"),
]


@pytest.mark.parametrize("action", ["report", "mask", "drop"])
def test_personal_data_is_reported_masked_or_dropped(
    run_prepare: PrepareRows,
    action: Any,  # noqa: ANN401
) -> None:
    run_prepare([*questions(60), *PERSONAL], personal_data=PersonalDataConfig(action=action))
    found = run_prepare.facts()["personal_data"]
    assert found["num_rows"] == 2
    assert (found["kinds"]["email"], found["kinds"]["card"], found["kinds"]["phone"]) == (2, 1, 0)
    rows = {row["id"]: row["messages"] for row in run_prepare.all_rows()}
    everything = "".join(file.read_text() for file in run_prepare.folder.glob("*.[jh]*"))
    match action:
        case "report":
            assert "ann.lee@example.org" in rows["mail"][0]["content"]
        case "mask":
            assert rows["mail"][0]["content"] == "Write to [EMAIL] about it."
            assert rows["mail"][1]["content"] == "I wrote to [EMAIL]."
            assert rows["card"][1]["content"] == "It is [CARD]."
            assert "ann.lee" not in everything
        case "drop":
            assert not {"mail", "card"} & set(rows)
            assert {reject["reason"] for reject in run_prepare.rejects()} == {
                "holds personal data (email)",
                "holds personal data (card)",
            }
            assert "ann.lee" not in everything
    assert "1111 1111" not in json.dumps(found)


# Several processes.


def test_several_processes_write_the_same_bytes_as_one(run_prepare: PrepareRows) -> None:
    generator = random.Random(3)
    rows: list[Any] = [
        chat(" ".join(generator.choices(WORDS, k=8)), generator.choice(WORDS), id=str(n))
        for n in range(20_000)
    ]
    rows[5000:5010] = rows[:10]
    rows[7000] = b"{"
    first = run_prepare(rows, num_workers=1)
    before = {file.name: file.read_bytes() for file in run_prepare.folder.iterdir()}
    assert run_prepare(rows, num_workers=2) == first
    after = {file.name: file.read_bytes() for file in run_prepare.folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == set()
    assert first["num_read"] == 20_000
    assert first["dropped"] == {"exact duplicate of another row": 10}
