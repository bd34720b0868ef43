"""Questions with free answers, and multiple choice."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from data.checks import RowError
from tests.data.shapes.conftest import Convert

Texts = Callable[..., list[tuple[str, str]]]
OPTIONS = ["one", "two", "three", "four"]


def answer_of(texts: Texts, row: dict[str, Any], **shape: object) -> str:
    (_, answer) = texts(
        row, **({"kind": "question_answer", "question": "q", "answer": "a"} | shape)
    )
    return answer[1]


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (" yes ", "yes"),
        (7, "7"),
        (2.5, "2.5"),
        (True, "true"),
        (["first", "second"], "first"),
        ({"text": ["span", "other"], "answer_start": [3, 9]}, "span"),
    ],
)
def test_answers_of_every_type(value: object, answer: str, texts: Texts) -> None:
    assert answer_of(texts, {"q": "?", "a": value}) == answer


@pytest.mark.parametrize(
    "context",
    [
        "First.\n\nSecond.",
        ["First.", " Second. ", ""],
        {"contexts": ["First.", "Second."], "labels": ["A", "B"]},
        [{"filename": "x", "text": "First."}, {"filename": "y", "text": "Second."}],
    ],
)
def test_a_context_stands_before_the_question(context: object, texts: Texts) -> None:
    row = {"q": "Is it?", "a": "no", "about": context}
    shape = {"question": "q", "answer": "a", "context": "about", "instruction": "Say yes or no."}
    assert texts(row, kind="question_answer", **shape) == [
        ("user", "First.\n\nSecond.\n\nIs it?\n\nSay yes or no."),
        ("assistant", "no"),
    ]


def test_a_row_without_a_context_is_a_question_alone(texts: Texts) -> None:
    shape = {"question": "q", "answer": "a", "context": "about"}
    found = texts({"q": "?", "a": "x", "about": None}, kind="question_answer", **shape)
    assert found[0] == ("user", "?")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": "x"}, "no column `q` (the columns are: a)"),
        ({"q": "", "a": "x"}, "`q` is empty"),
        ({"q": "?", "a": None}, "`a` is empty"),
        ({"q": "?", "a": []}, "`a` is empty"),
        ({"q": "?", "a": {"label": 1}}, "`a` is an object, not text"),
        ({"q": {"x": 1}, "a": "x"}, "`q` is an object without any of contexts, text"),
    ],
)
def test_what_makes_a_question_unusable(row: dict[str, Any], reason: str, texts: Texts) -> None:
    with pytest.raises(RowError) as caught:
        answer_of(texts, row)
    assert str(caught.value).startswith(reason)


def chosen(texts: Texts, options: object, key: object, **shape: object) -> list[tuple[str, str]]:
    columns = {"kind": "multiple_choice", "question": "q", "options": "o", "answer": "k"}
    return texts({"q": "Which?", "o": options, "k": key}, **(columns | shape))


def test_options_are_lettered_and_the_letter_is_the_answer(texts: Texts) -> None:
    assert chosen(texts, OPTIONS, 2) == [
        (
            "user",
            "Which?\n\nA) one\nB) two\nC) three\nD) four\n\nAnswer with the letter.",
        ),
        ("assistant", "C"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        json.dumps(OPTIONS),
        dict(zip("ABCD", OPTIONS, strict=True)),
        dict(zip("DCBA", reversed(OPTIONS), strict=True)),
        {"text": OPTIONS, "label": list("ABCD")},
        {"A": "one", "B": "two", "C": "three", "D": "four", "E": None},
    ],
    ids=["list", "JSON text", "mapping", "mapping in another order", "labels", "an absent fifth"],
)
@pytest.mark.parametrize("key", ["B", "b", "(B)", "B.", "two", 1, "1", ["B"], 1.0])
def test_every_form_of_options_and_key(options: object, key: object, texts: Texts) -> None:
    asked, answered = chosen(texts, options, key)
    assert asked[1].startswith("Which?\n\nA) one\nB) two\nC) three\nD) four\n\n")
    assert answered == ("assistant", "B")


def test_a_column_for_each_option(texts: Texts) -> None:
    row = {"q": "?", "opa": "x", "opb": "y", "cop": 1}
    shape = {"question": "q", "options": ["opa", "opb"], "answer": "cop"}
    assert texts(row, kind="multiple_choice", **shape)[1] == ("assistant", "B")


def test_numbers_may_begin_at_one(texts: Texts) -> None:
    assert chosen(texts, OPTIONS, 1, first_index=1)[1] == ("assistant", "A")
    assert chosen(texts, OPTIONS, "4", first_index=1)[1] == ("assistant", "D")


def test_labels_that_are_numbers_name_the_options(texts: Texts) -> None:
    options = {"text": OPTIONS, "label": ["1", "2", "3", "4"]}
    assert chosen(texts, options, "1")[1] == ("assistant", "A")


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        (OPTIONS, "E", "the key 'E' names none of the 4 options"),
        (OPTIONS, 4, "the key '4' names none of the 4 options"),
        (OPTIONS, -1, "the key '-1' names none of the 4 options"),
        (OPTIONS, "five", "the key 'five' names none of the 4 options"),
        (OPTIONS, None, "the key of the right option is null, not a letter or a number"),
        (OPTIONS, True, "the key of the right option is true or false, not a letter"),
        (OPTIONS, " ", "the key of the right option is empty"),
        (["B", "A"], "A", "the key 'A' names one option by its place, another by its text"),
        (["2", "1", "0"], "0", "the key '0' names one option by its place, another by its text"),
        (["one"], "A", "fewer than two options"),
        (["one", "", "three"], "A", "option B is empty"),
        (["one", ["two"]], "A", "option B is a list, not text"),
        (7, "A", "`o` is a number, not a list of options"),
        ("one, two", "A", "`o` is not JSON"),
        ([str(n) for n in range(30)], "A", "30 options, and only 26 letters"),
    ],
)
def test_what_makes_a_choice_unusable(
    options: object, key: object, reason: str, texts: Texts
) -> None:
    with pytest.raises(RowError) as caught:
        chosen(texts, options, key)
    assert str(caught.value).startswith(reason)


def test_a_number_is_never_an_options_text(texts: Texts) -> None:
    assert chosen(texts, ["1", "0"], 0)[1] == ("assistant", "A")


def test_context_and_instruction_of_a_choice(texts: Texts) -> None:
    row = {"q": "Which?", "o": ["x", "y"], "k": 0, "c": ["A text."]}
    shape = {"question": "q", "options": "o", "answer": "k", "context": "c", "instruction": "Say."}
    asked = texts(row, kind="multiple_choice", **shape)[0][1]
    assert asked == "A text.\n\nWhich?\n\nA) x\nB) y\n\nSay."


def test_an_uncommon_row_is_no_crash(convert: Convert) -> None:
    for key in ({}, [], ["A", "B"], {"A": 1}):
        with pytest.raises(RowError):
            convert(
                {"q": "?", "o": OPTIONS, "k": key},
                kind="multiple_choice",
                question="q",
                options="o",
                answer="k",
            )
