import os
import pickle
from pathlib import Path

from configs.errors import INTERRUPTED_STATUS, Interrupted, UserError


def test_message_says_what_where_and_what_to_do() -> None:
    error = UserError("no rows", where=Path("a/rows.jsonl"), remedy="add rows")
    assert str(error) == "no rows\n  where: a/rows.jsonl\n  to do: add rows"
    assert (error.what, error.where, error.remedy) == ("no rows", "a/rows.jsonl", "add rows")


def test_message_without_place_and_remedy_is_the_sentence_alone() -> None:
    assert str(UserError("no rows")) == "no rows"


def test_an_error_survives_the_way_between_processes() -> None:
    error = UserError("no rows", where=Path("a/rows.jsonl"), remedy="add rows")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UserError
    assert (again.what, again.where, again.remedy) == ("no rows", "a/rows.jsonl", "add rows")
    assert str(again) == str(error)


def test_no_handler_of_faults_takes_an_interruption_for_one() -> None:
    assert not issubclass(Interrupted, Exception)
    assert str(Interrupted("SIGTERM after step 3")) == "SIGTERM after step 3"


def test_the_status_of_an_interruption_asks_for_another_try() -> None:
    assert INTERRUPTED_STATUS == os.EX_TEMPFAIL
