from typing import Any

import pytest

from configs.errors import UserError
from data.shapes.detect import detect_shape, told_shape

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
TURNS = [USER, ASSISTANT]
SAID = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def detected(*rows: dict[str, Any]) -> str:
    return told_shape(detect_shape(rows, where="rows.jsonl").shape)


def refused(*rows: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        detect_shape(rows, where="rows.jsonl")
    return caught.value


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": TURNS}, "messages (column: messages)"),
        ({"messages": TURNS, "prompt": "q", "completion": "a"}, "messages (column: messages)"),
        ({"conversations": TURNS}, "messages (column: conversations)"),
        ({"conversations": SAID}, "sharegpt (column: conversations)"),
        ({"instruction": "i", "input": "x", "output": "a"}, "alpaca"),
        ({"instruction": "i", "output": "a"}, "alpaca"),
        (
            {"instruction": "i", "context": "", "response": "a", "category": "c"},
            "question_answer (question: instruction, answer: response, context: context)",
        ),
        (
            {"prompt": "q", "completion": "a"},
            "prompt_completion (prompt: prompt, completion: completion)",
        ),
        (
            {"prompt": [USER], "response": [ASSISTANT]},
            "prompt_completion (prompt: prompt, completion: response)",
        ),
        (
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            "preference (prompt: prompt, chosen: chosen, rejected: rejected)",
        ),
        (
            {"chosen": TURNS, "rejected": [USER, {**ASSISTANT, "content": "b"}]},
            "preference (chosen: chosen, rejected: rejected)",
        ),
        ({"Question": "q", "Answer": "a"}, "question_answer (question: Question, answer: Answer)"),
        (
            {"id": "1", "context": "c", "question": "q", "answers": {"text": ["a"]}},
            "question_answer (question: question, answer: answers, context: context)",
        ),
        (
            {"question": "q", "options": {"A": "x", "B": "y"}, "answer_idx": "B", "answer": "y"},
            "multiple_choice (question: question, options: options, answer: answer_idx, "
            "first_index: 0)",
        ),
        (
            {"question": "q", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 0},
            "multiple_choice (question: question, options: ['opa', 'opb', 'opc', 'opd'], "
            "answer: cop, first_index: 0)",
        ),
        (
            {"question": "q", "A": "w", "B": "x", "C": "y", "D": "z", "answer": "C"},
            "multiple_choice (question: question, options: ['A', 'B', 'C', 'D'], "
            "answer: answer, first_index: 0)",
        ),
        (
            {"context": "c", "endings": ["x", "y"], "label": 0},
            "multiple_choice (question: context, options: endings, answer: label, first_index: 0)",
        ),
        (
            {"question": "q", "choices": ["x", "y"], "answer": 2},
            "multiple_choice (question: question, options: choices, answer: answer, "
            "first_index: 1)",
        ),
        (
            {"question": "q", "choices": ["5", "7"], "answer": "7"},
            "multiple_choice (question: question, options: choices, answer: answer, "
            "first_index: 0)",
        ),
    ],
)
def test_shapes_told_by_their_columns(row: dict[str, Any], told: str) -> None:
    assert detected(row, row, row) == told


def test_how_many_rows_fit_is_told() -> None:
    row = {"instruction": "i", "output": "a"}
    fit = detect_shape([row, row, {**row, "output": None}], where="rows.jsonl")
    assert (fit.num_rows, fit.num_fitting) == (3, 2)
    assert fit.reasons == {"`output` is empty": 1}


def test_rows_without_a_column_that_others_have_do_not_hide_the_shape() -> None:
    row = {"question": "q", "answer": "a"}
    assert detected(row, row, {"note": "x"}).startswith("question_answer")


def test_unknown_columns_are_told_with_what_to_write() -> None:
    error = refused({"label": "0", "sentence1": "a long sentence", "id": "7"})
    assert error.what == "the shape of the rows is not among those that are recognized"
    assert error.where == "rows.jsonl"
    assert error.remedy is not None
    assert (
        "  shape:\n    kind: question_answer\n    question: sentence1\n    answer: label"
        in error.remedy
    )
    assert error.remedy.endswith("the columns are: label, sentence1, id")


def test_a_first_line_taken_for_a_header_is_suspected() -> None:
    error = refused({"When a buyer and a seller executed a valid contract for the sale of": "x"})
    assert "if the file has no header line, name its `columns`" in (error.remedy or "")


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": "a", "response": "b"},
        {"prompt": "p", "question": "q", "answer": "a"},
        {"instruction": "i", "input": "x", "response": "a"},
        {"messages": TURNS, "prompt": "q", "chosen": "a", "rejected": "b"},
        {"question": "q", "choices": ["x", "y", "z"], "answer": 1},
    ],
    ids=["answers", "questions", "input", "pairs and turns", "first number"],
)
def test_what_can_be_read_in_two_ways_is_asked_for(row: dict[str, Any]) -> None:
    error = refused(row, row)
    assert error.what.startswith("the rows can be read in more than one way: ")
    assert " or " in error.what


def test_columns_that_speak_for_a_shape_which_the_rows_do_not_have() -> None:
    error = refused({"messages": "no turns"}, {"messages": [ASSISTANT]}, {"messages": "none"})
    assert error.what.startswith(
        "the columns are those of messages (column: messages), but of the first 3 rows 2 are not: "
    )


def test_a_shape_that_few_rows_have_is_not_taken() -> None:
    error = refused({"messages": TURNS}, {"messages": []}, {"messages": []})
    assert "of the first 3 rows 2 are not: no assistant turn" in error.what


def test_the_first_number_is_told_by_any_row() -> None:
    rows = [{"question": "q", "choices": ["x", "y", "z"], "answer": key} for key in (1, 2, 1, 0)]
    assert detected(*rows).endswith("first_index: 0)")
    rows[-1]["answer"] = 3
    assert detected(*rows).endswith("first_index: 1)")
