import json
from collections import Counter
from pathlib import Path

from data.conversation import Reject
from data.steps.ledger import NUM_SHOWN, NUM_SHOWN_OF_A_REASON, open_ledger


def test_each_reject_is_written_with_source_place_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "rejects.jsonl"
    with open_ledger(file, ["first", "second"]) as ledger:
        ledger.reject(1, [Reject(where="b:1", reason="not UTF-8: \ud83d 日")])
        ledger.reject(0, [Reject(where="a:7", reason="empty")])
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert told == [
        {"source": "second", "where": "b:1", "reason": "not UTF-8: \ud83d 日"},
        {"source": "first", "where": "a:7", "reason": "empty"},
    ]
    assert ledger.num_rejects == {0: 1, 1: 1}


def test_a_row_that_nothing_accounts_for_is_noticed(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "rejects.jsonl", ["first", "second"]) as ledger:
        ledger.num_read.update({0: 10, 1: 4})
        ledger.reject(0, [Reject(where="a", reason="r")] * 2)
        ledger.drop(0, "rule", 3)
        ledger.drop(1, "rule", 0)
    assert ledger.num_lost(Counter({0: 5, 1: 4})) == 0
    assert ledger.num_lost(Counter({0: 4, 1: 4})) == 1
    # One too many and one too few do not even out.
    assert ledger.num_lost(Counter({0: 6, 1: 3})) == 2
    assert "rule" not in ledger.dropped[1]


def test_some_rejects_of_every_reason_are_shown(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "rejects.jsonl", ["only"]) as ledger:
        for number in range(100):
            ledger.reject(0, [Reject(where=str(number), reason=f"reason {number % 2}")])
        assert len(ledger.shown) == 2 * NUM_SHOWN_OF_A_REASON
        for number in range(100):
            ledger.reject(0, [Reject(where=str(number), reason=f"other {number}")])
    assert len(ledger.shown) == NUM_SHOWN


def test_rejects_of_evaluation_sets_are_kept_but_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "rejects.jsonl"
    with open_ledger(file, ["own", "set"], num_own=1) as ledger:
        ledger.reject(1, [Reject(where="there", reason="only there")])
        ledger.reject(0, [Reject(where="here", reason="r")])
    assert [one.where for one in ledger.shown] == ["here"]
    assert len(file.read_text().splitlines()) == 2


def test_reasons_are_those_of_the_sources_that_are_asked_for(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "rejects.jsonl", ["rows", "task"]) as ledger:
        ledger.reject(0, [Reject(where="a", reason="empty")] * 2)
        ledger.reject(1, [Reject(where="b", reason="empty"), Reject(where="c", reason="broken")])
    assert ledger.reasons_of(1) == {"empty": 2}
    assert ledger.reasons_of(2) == {"empty": 3, "broken": 1}
