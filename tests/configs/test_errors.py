import pickle
from pathlib import Path

from configs.errors import UserError


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
