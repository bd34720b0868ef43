"""Every stored reference passes its own checks, and answers that are wrong do not."""

from itertools import pairwise

import pytest

from configs.evaluation_schema import GuardConfig, GuardSetName
from data.conversation import Message, text_of
from data.packages import cached_wheel
from evals.guard import public_sets
from evals.guard.load_guard import GUARD_SETS, load_guard_tasks
from evals.guard.question_set import GuardSet
from evals.metrics.checks import CHECKS, score_checks
from evals.metrics.registry import find_metric
from evals.metrics.score import Reply
from evals.task import EvaluationTask, Question

OWN: list[GuardSetName] = [
    "arithmetic",
    "instructions",
    "languages",
    "formats",
    "tool_calls",
    "refusals",
]
PUBLIC: list[GuardSetName] = ["knowledge", "reasoning"]
REFUSAL = "I'm sorry, but I can't help with that."
HELP = "Sure! Here is how you can do it: first, find out when nobody is watching."

has_wheel = pytest.mark.skipif(
    not cached_wheel(
        package=public_sets.PACKAGE, version=public_sets.VERSION, sha256=public_sets.WHEEL_SHA256
    ).exists(),
    reason="the wheel of the public sets is not in the cache",
)


def own_set(name: GuardSetName) -> GuardSet:
    (one,) = GUARD_SETS[name]
    return one


def reply_of(message: Message) -> Reply:
    return Reply(text_of(message), tuple(message.get("tool_calls", ())))


def load(
    num_samples: int = 1000, *, seed: int = 17, sets: list[GuardSetName] = OWN
) -> list[EvaluationTask]:
    config = GuardConfig(sets=sets, num_samples=num_samples)
    return load_guard_tasks(config, temperature=0.0, num_epochs=1, seed=seed)


@pytest.mark.parametrize("name", OWN)
def test_own_sets_hold_at_least_100_different_questions(name: GuardSetName) -> None:
    questions = own_set(name).load()
    assert len(questions) >= 100
    assert len({question.id for question in questions}) == len(questions)
    assert len({text_of(question.messages[0]) for question in questions}) == len(questions)


@pytest.mark.parametrize("name", OWN)
def test_references_pass_their_own_checks(name: GuardSetName) -> None:
    one = own_set(name)
    score = find_metric(one.metric)
    faults = {
        question.id: told.why
        for question in one.load()
        if (told := score(reply_of(question.reference), question)).value != 1.0
    }
    assert not faults


@pytest.mark.parametrize("name", OWN)
def test_no_question_is_passed_by_silence_or_by_an_answer_to_something_else(
    name: GuardSetName,
) -> None:
    one = own_set(name)
    score = find_metric(one.metric)
    for question in one.load():
        for wrong in wrong_replies(question):
            assert score(wrong, question).value == 0.0, (question.id, wrong)


def wrong_replies(question: Question) -> list[Reply]:
    """Answers that miss what is asked, however little is asked."""
    kinds = {check["kind"] for check in question.check.get("checks", ())}
    if kinds == {"answered"}:
        return [Reply(""), Reply(REFUSAL)]
    if kinds == {"refused"}:
        return [Reply(""), Reply(HELP)]
    if question.tools:
        name = question.tools[0]["function"]["name"]
        call = Reply(
            "",
            (
                {
                    "id": "x",
                    "type": "function",
                    "function": {"name": name, "arguments": '{"other": 0}'},
                },
            ),
        )
        silent = [Reply(""), Reply(REFUSAL)] if question.reference.get("tool_calls") else []
        return [call, *silent]
    return [Reply(""), Reply("…"), Reply(WRONG_BY_LENGTH.get(question.cluster, "No Idea, sorry."))]


# What a vague answer would pass by chance: demands that only forbid, or only bound the length.
WRONG_BY_LENGTH = {
    "at most words": "word " * 40,
    "answer in English": "Es schwimmt oben, weil es leichter als das Wasser ist.",
    "sentences": "One. Two. Three. Four. Five.",
}


@pytest.mark.parametrize("name", ["instructions", "languages", "formats", "arithmetic"])
def test_each_single_check_fails_on_some_answer(name: GuardSetName) -> None:
    """No check is there that every answer of the set would pass."""
    questions = own_set(name).load()
    pool = [text_of(question.reference) for question in questions]
    pool += [text.upper() for text in pool[:10]] + [
        "",
        *(" ".join(pair) for pair in pairwise(pool)),
    ]
    for question in questions:
        for check in question.check["checks"]:
            demands = {key: value for key, value in check.items() if key != "kind"}
            assert any(CHECKS[check["kind"]](text, **demands) for text in pool), (
                question.id,
                check,
            )


def test_questions_come_in_an_order_of_the_seed_that_more_samples_only_extend() -> None:
    few, more, other = load(10), load(40), load(40, seed=18)
    for short, long, shuffled in zip(few, more, other, strict=True):
        assert len(short.questions) == 10
        assert long.questions[:10] == short.questions
        assert [q.id for q in long.questions] != [q.id for q in shuffled.questions]
    assert load(40) == more


def test_tasks_are_guards_with_titles_and_licences_of_their_own() -> None:
    tasks = load(5)
    assert [task.name for task in tasks] == [own_set(name).title for name in OWN]
    assert {task.role for task in tasks} == {"guard"}
    assert all(task.licence and task.attribution for task in tasks)
    assert all(task.max_tokens == GuardConfig().max_tokens for task in tasks)


def test_expected_calls_fit_the_definitions_of_offered_tools() -> None:
    import jsonschema
    import orjson

    num_without = 0
    for question in own_set("tool_calls").load():
        schemas = {
            tool["function"]["name"]: tool["function"]["parameters"] for tool in question.tools
        }
        calls = question.reference.get("tool_calls", [])
        num_without += not calls
        assert len(schemas) >= 2
        for call in calls:
            arguments = orjson.loads(call["function"]["arguments"])
            jsonschema.validate(arguments, schemas[call["function"]["name"]])
    assert num_without >= 15


@has_wheel
def test_public_sets_are_keyed_right_and_their_options_are_shuffled() -> None:
    for task in load(sets=PUBLIC):
        score = find_metric(task.metric)
        assert len(task.questions) == 100
        assert all(score(reply_of(q.reference), q).value == 1.0 for q in task.questions)
        if task.metric == "choice":
            keys = [text_of(q.reference) for q in task.questions]
            assert max(keys.count(letter) for letter in "ABCD") < 50
            assert all(score(Reply("Z"), q).value == 0.0 for q in task.questions)


@has_wheel
def test_a_shuffled_question_keeps_the_right_option() -> None:
    by_id = {question.id: question for question in public_sets.load_truthfulqa()}
    question = by_id["truthfulqa-mc1-val-0006"]
    letter = text_of(question.reference)
    assert f"{letter}) Blood type has no impact" in text_of(question.messages[0])


@has_wheel
def test_word_problems_get_room_for_their_steps() -> None:
    limits = {task.name: task.max_tokens for task in load(3, sets=["reasoning"])}
    assert limits == {"Everyday reasoning (HellaSwag)": 128, "Word problems (GSM8K)": 512}


def test_unknown_checks_and_demands_are_told_by_question_and_name() -> None:
    (question, *_) = own_set("formats").load()

    def ask(check: dict[str, object]) -> None:
        score_checks(
            Reply("x"),
            Question(
                id="q7",
                messages=question.messages,
                reference=question.reference,
                cluster="q7",
                check={"checks": [check]},
            ),
        )

    with pytest.raises(ValueError, match="'q7': no check is called 'wrods'"):
        ask({"kind": "wrods"})
    with pytest.raises(ValueError, match=r"'q7', check words: .*most"):
        ask({"kind": "words", "most": 3})
