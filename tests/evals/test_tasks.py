import pytest
from inspect_ai.model import ChatMessageSystem, ChatMessageUser

from configs.errors import UserError
from data.conversation import Conversation, Message, question_and_answer
from evals.rows import reference_answer
from evals.tasks import build_task, choose_examples, normalize_answer
from tests.evals.conftest import chapter_rows


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  MIT (Permissive)\n", "mit (permissive)"),
        ("Diseases\n of  the\tskin.", "diseases of the skin"),
        ("Wait...", "wait.."),
        ("Straße .", "strasse"),
        ("", ""),
        (".", ""),
    ],
)
def test_answers_are_compared_in_this_form(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def test_an_answer_inside_a_sentence_is_not_the_answer() -> None:
    assert normalize_answer("The answer is MIT.") != normalize_answer("MIT")


def with_system(row: Conversation, text: str) -> Conversation:
    return Conversation(id=row.id, messages=(Message(role="system", content=text), *row.messages))


def test_a_sample_is_the_question_and_its_reference() -> None:
    row = with_system(question_and_answer("Who?", "Me", id="a/1"), "Be brief.")
    (sample,) = build_task([row], name="t", max_tokens=8).dataset
    assert sample.id == "a/1"
    assert sample.target == "Me"
    assert [(type(m), m.text) for m in sample.input if not isinstance(m, str)] == [
        (ChatMessageSystem, "Be brief."),
        (ChatMessageUser, "Who?"),
    ]


def test_worked_examples_stand_between_system_turn_and_question() -> None:
    row = with_system(question_and_answer("Who?", "Me", id="1"), "Be brief.")
    examples = [
        with_system(question_and_answer(f"q{n}", f"a{n}", id=f"e{n}"), "Be brief.")
        for n in range(2)
    ]
    (sample,) = build_task([row], name="t", examples=examples, max_tokens=8).dataset
    assert [(m.role, m.text) for m in sample.input if not isinstance(m, str)] == [
        ("system", "Be brief."),
        ("user", "q0"),
        ("assistant", "a0"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "Who?"),
    ]


def test_answers_are_asked_for_at_temperature_zero() -> None:
    config = build_task(chapter_rows(0, 2), name="t", max_tokens=8).config
    assert (config.temperature, config.max_tokens) == (0.0, 8)


def test_the_version_changes_with_anything_that_is_asked() -> None:
    rows, examples = chapter_rows(0, 3), chapter_rows(10, 1)
    versions = {
        build_task(rows, name="t", max_tokens=8).version,
        build_task(rows, name="other", max_tokens=8).version,
        build_task(rows, name="t", max_tokens=9).version,
        build_task(rows[:2], name="t", max_tokens=8).version,
        build_task(rows, name="t", examples=examples, max_tokens=8).version,
    }
    # The name is told apart by inspect itself.
    assert len(versions) == 4


def test_an_example_that_asks_a_test_question_is_refused() -> None:
    rows = chapter_rows(0, 3)
    leak = with_system(
        question_and_answer("diagnosis:  term 2. Which chapter?", "x", id="leak"), "Be brief."
    )
    with pytest.raises(UserError, match="leak asks the same question as the test row icd/2"):
        build_task(rows, name="t", examples=[leak], max_tokens=8)


def test_examples_are_the_same_for_the_same_seed() -> None:
    rows = chapter_rows(0, 60)
    chosen = choose_examples(rows, 4, seed=1)
    assert chosen == choose_examples(rows[::-1], 4, seed=1)
    assert chosen != choose_examples(rows, 4, seed=2)


def test_examples_are_short_and_answer_differently() -> None:
    rows = [question_and_answer("word " * (n + 1), f"answer {n % 7}", id=str(n)) for n in range(60)]
    chosen = choose_examples(rows, 5, seed=3)
    assert len({reference_answer(row) for row in chosen}) == 5
    assert all(int(row.id) < 20 for row in chosen)


def test_longer_rows_are_taken_where_short_ones_answer_alike() -> None:
    rows = [question_and_answer("q" * (n + 1), "yes", id=str(n)) for n in range(30)]
    rows.append(question_and_answer("q" * 40, "no", id="no"))
    chosen = choose_examples(rows, 3, seed=3)
    assert [reference_answer(row) for row in chosen[:2]] == ["yes", "no"]
    assert len(chosen) == 3


def test_too_few_rows_for_the_examples_is_a_user_error() -> None:
    with pytest.raises(UserError, match="3 worked examples") as caught:
        choose_examples(chapter_rows(0, 2), 3, seed=1)
    assert "num_examples" in (caught.value.remedy or "")
    assert choose_examples([], 0, seed=1) == []
