import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import MultipleChoiceShape
from data.conversation import text_of
from data.shapes.questions import multiple_choice_converter
from evals.metrics.choice import offered_options, read_choice, score_choice
from evals.metrics.score import Reply
from evals.task import Question
from tests.evals.metrics.questions import question_of

OPTIONS = {
    "A": "Ibuprofen",
    "B": "Aspirin",
    "C": "C. difficile toxin",
    "D": "A reduction of the dose",
}
LISTED = "\n".join(f"{letter}) {text}" for letter, text in OPTIONS.items())
ASKED = f"Which drug?\n\n{LISTED}\n\nAnswer with the letter alone."


@pytest.mark.parametrize(
    "answer",
    [
        "B", "b", "(B)", "[b]", "B)", "B.", "**B**", "'B'", "`B`", "### B", "- B", "Ｂ", "（Ｂ）",
        "Answer: B", "answer: b.", "Answer:\n\n**B**", "The answer is B.", "The answer is 'B'",
        "The correct answer is (B).", "The correct option is **(B) Aspirin**, since A is weak.",
        "Final answer: $B$", r"\boxed{B}", r"So it is $\boxed{\text{B}}$.", '{"answer": "B"}',
        "B. because it thins the blood", "B because it works", "B, because A is too slow",
        "B - Aspirin", "B – it thins the blood", "B) Aspirin", "(B) Aspirin", "B: Aspirin",
        "Option B", "Option B: Aspirin", "B is correct.", "Therefore, B is the best choice.",
        "A is incorrect. B is correct.", "(A) is incorrect, (B) is correct", "I would choose B.",
        "Aspirin", "aspirin.", "**Aspirin**", "Let me think about both.\n\nB",
        "A) Ibuprofen\nB) Aspirin\nC) x\nD) y\n\nAnswer: B",
        "B. A reduction of pain follows.",
    ],
)  # fmt: skip
def test_the_letter_is_read_as_chat_models_put_it(answer: str) -> None:
    assert read_choice(answer, OPTIONS) == "B"
    assert score_choice(Reply(answer), question_of("B", asked=ASKED)).value == 1
    assert score_choice(Reply(answer), question_of("C", asked=ASKED)).value == 0


@pytest.mark.parametrize(
    "answer",
    [
        "", "   ", "...", "E", "None of the above.", "I think so.", "A reduction in pain",
        "A man of 50 years", "The answer is a reduction.", "A or B", "A and B", "A, B", "A/B", "AB",
        "A B", "A) B)", "A. B. C. D.", "(A) and (B)", "A\nB", "(A) or (C)", "Neither A nor B.",
        "The answer is A or B.", "The answer is (A) or (B).", "not B", "The answer is not B.",
        "The answer is B. The answer is C.", "B\n\nAnswer: C", LISTED, "A: Aspirin",
        "Hepatitis B is the most likely cause.", "Vitamin B.", "Vitamin\nB12", "e.g. this",
        "B isn't correct", "(B) is wrong",
    ],
)  # fmt: skip
def test_no_letter_is_guessed(answer: str) -> None:
    assert read_choice(answer, OPTIONS) == ""
    score = score_choice(Reply(answer), question_of("B", asked=ASKED))
    assert (score.value, score.label) == (0, "")
    assert score.why


def test_the_text_of_an_option_is_not_taken_for_the_letter_that_it_begins_with() -> None:
    options = {"A": "S. aureus", "B": "E. coli", "C": "C. difficile", "D": "x", "E": "y"}
    assert read_choice("E. coli", options) == "B"
    assert read_choice("The answer is E. coli.", options) == "B"
    assert read_choice("E. Coli is a bacterium", options) == "B"
    assert read_choice("E", options) == "E"


def test_an_option_that_begins_with_the_article_is_chosen_by_its_text() -> None:
    assert read_choice("A reduction of the dose", OPTIONS) == "D"
    assert read_choice("D. A reduction of the dose", OPTIONS) == "D"


def test_an_option_of_one_digit_is_chosen_by_its_text() -> None:
    assert read_choice("2", {"A": "1", "B": "2"}) == "B"


def test_letters_that_were_not_offered_are_no_answer() -> None:
    assert read_choice("E", OPTIONS) == ""
    assert read_choice("E", {}) == "E"


def test_options_are_read_from_what_the_data_stage_renders() -> None:
    shape = MultipleChoiceShape(
        kind="multiple_choice", question="q", options="o", answer="a", context="c"
    )
    row = {"q": "Which?", "o": list(OPTIONS.values()), "a": 1, "c": "A. Facts\nB. More facts\nText"}
    turns = multiple_choice_converter(shape)(row)
    asked, expected = (text_of(turn) for turn in turns.messages)
    question = question_of(expected, asked=asked)
    assert offered_options(question) == OPTIONS
    assert score_choice(Reply("(B)"), question).value == 1


def test_without_a_list_no_options_are_read() -> None:
    assert offered_options(question_of("B", asked="A) is the only one.\nB and C are not")) == {}
    no_user = Question(
        id="q", messages=(), reference={"role": "assistant", "content": "B"}, cluster="q"
    )
    assert offered_options(no_user) == {}


def test_a_reference_without_a_letter_is_told() -> None:
    assert "reference" in score_choice(Reply("B"), question_of("both", asked=ASKED)).why


@given(st.text(max_size=200))
def test_any_text_gives_an_offered_letter_or_none(text: str) -> None:
    assert read_choice(text, OPTIONS) in {"", *OPTIONS}


@given(st.sampled_from(sorted(OPTIONS)), st.sampled_from(sorted(OPTIONS)))
def test_two_statements_choose_only_where_they_agree(first: str, second: str) -> None:
    answer = f"The answer is {first}. As I said, the correct answer is ({second})."
    assert read_choice(answer, OPTIONS) == (first if first == second else "")


@given(
    st.sampled_from(string.ascii_uppercase), st.sampled_from(["{}", "({})", "{}.", "Answer: {}"])
)
def test_all_letters_are_read_where_no_options_are_known(letter: str, form: str) -> None:
    assert read_choice(form.format(letter), {}) == letter


@pytest.mark.parametrize(
    "text",
    ["answer " * 15_000, "answer" + " " * 100_000 + "x", "A) " * 33_000, "(" * 100_000,
     "B\n" * 50_000, r"\boxed{" * 14_000, "A, " * 33_000, "the answer is B. " * 6_000],
)  # fmt: skip
def test_very_long_answers_take_linear_time(text: str) -> None:
    assert read_choice(text, OPTIONS) in {"", "B"}
