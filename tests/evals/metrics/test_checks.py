"""Each kind of check on answers that it has to pass and answers that it has to fail."""

from typing import Any

import pytest

from evals.metrics.checks import CHECKS, score_checks
from evals.metrics.score import Reply
from evals.task import Question

TABLE = [["city", "country"], ["Paris", "France"]]
PERSON = {"name": "Maria", "age": 34}

# kind, what it demands, an answer that passes, one that fails
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("number", {"value": 1430}, "She pays $1,430 in all.", "1,431"),
    ("number", {"value": 5}, "2 × 3 - 1 = 5", "5 + 1 = 6"),
    ("number", {"value": 5}, "Answer: 5 (not 6 or 7)", "Answer: 6, not 5"),
    (
        "number",
        {"value": 42},
        "To answer this we take 3 steps. It is 42.",
        "The answer is 3, or 42",
    ),
    ("number", {"value": 6}, "**Answer:** 6", "**Answer**: 7 (6 + 1)"),
    ("number", {"value": -38}, "It is −38.", "It is 38."),
    ("number", {"value": 12}, "50 - 38 = **12**", "50-38"),
    ("number", {"value": 7.5, "tolerance": 1e-6}, "7.50", "7.4"),
    ("number", {"value": 18}, "3 + 15\n#### 18", "no idea"),
    ("number", {"value": 14}, r"so \boxed{14} it is, after 20 steps", r"\boxed{20}, from 14"),
    ("answer", {"accepted": ["Tokio", "Tokyo"]}, "Das ist TOKYO.", "Tokyoter"),
    ("answer", {"accepted": ["frío"]}, "fri\u0301o", "frio"),
    ("answer", {"accepted": ["odd"], "rejected": ["even"]}, "It is odd", "odd or even"),
    ("equals", {"text_expected": "To be."}, ' "To be." ', "to be."),
    ("equals", {"text_expected": "To be.", "match_case": False}, "to be.", "to be"),
    ("equals", {"text_expected": "2021-05-03"}, "```\n2021-05-03\n```", "2021-5-3"),
    ("contains", {"words": ["river", "old bridge"]}, "The River, an old bridge.", "rivers, bridge"),
    ("avoids", {"words": ["hot"]}, "A hotel.", "So hot!"),
    ("avoids", {"words": ["hot"]}, "Warm.", " "),
    ("avoids_characters", {"characters": ",."}, "no stops here", "one, two"),
    ("avoids_characters", {"characters": "e"}, "Big cats run", "Eat"),
    ("occurrences", {"word": "rain", "exactly": 2}, "Rain on rain, rainy", "rain"),
    ("in_order", {"words": ["Rome", "Cairo"]}, "From Rome to Cairo.", "From Cairo to Rome."),
    ("starts_with", {"start": "Yes,"}, '"Yes, it is."', "yes, it is"),
    ("ends_with", {"end": "The end."}, "So it was. **The end.**", "The end. Bye."),
    ("words", {"exactly": 3}, "don't well-known stop", "one two"),
    ("words", {"at_least": 2, "at_most": 3}, "one two", "one two three four"),
    ("words", {"at_most": 3}, "one", ""),
    ("sentences", {"exactly": 2}, "It costs 3.50 euros. Really!", "One. Two. Three."),
    ("lines", {"exactly": 2}, "a\n\nb\n", "a"),
    ("paragraphs", {"exactly": 2}, "a\nb\n\nc", "a\nb\nc"),
    ("bullets", {"exactly": 2}, "- a\n- b", "- a\nb"),
    ("numbered", {"exactly": 2}, "1. a\n2) b", "1. a\n3. b"),
    ("each_line_starts", {"start": "> "}, "> a\n> b", "> a\nb"),
    ("each_line_starts", {"start": "> "}, "> a", ""),
    ("items", {"expected": ["ant", "bear"]}, "1. Ant\n2. **Bear**", "bear, ant"),
    ("items", {"expected": ["ant", "bear"]}, "ant, bear.", "The order is ant, bear"),
    ("num_items", {"exactly": 2, "accepted": ["a", "e", "i"]}, "a, e", "a, a"),
    ("num_items", {"exactly": 2, "accepted": ["a", "e", "i"]}, "- i\n- e", "a, b"),
    ("upper_case", {}, "STOP, 2 DOGS!", "STOP now"),
    ("lower_case", {}, "rome and 2 dogs", "Rome"),
    ("pattern", {"regex": r"0*1110"}, "`1110`", "0b1110"),
    ("json_object", {"values": PERSON}, '```json\n{"name": "maria", "age": 34}\n```', "{}"),
    ("json_object", {"values": PERSON}, '{"age":34,"name":"Maria"}', '{"name":"Maria","age":"34"}'),
    ("json_object", {"values": {"ok": True}}, '{"ok": true}', '{"ok": 1}'),
    ("json_object", {"keys": {"n": "integer"}}, '{"n": 3}', '{"n": true}'),
    ("json_object", {"keys": {"n": "integer"}}, '{"n": 3}', '{"n": 3, "m": 4}'),
    ("json_object", {"keys": {"n": "integer"}}, '{"n": 3}', 'Here it is: {"n": 3}'),
    ("json_object", {"keys": {"n": "number"}}, '{"n": 3.5}', '{"n": NaN}'),
    ("json_array", {"values": [5, 4]}, "[5, 4]", "[4, 5]"),
    ("json_array", {"values": ["red"]}, '["Red"]', "['red']"),
    ("yaml_mapping", {"values": PERSON}, "```yaml\nname: Maria\nage: 34\n```", "name: Maria"),
    ("yaml_mapping", {"values": PERSON}, "name: Maria\nage: 34", "name: Maria: x\n age"),
    ("csv_rows", {"rows": TABLE}, 'city, country\n"Paris",France\n', "city;country\nParis;France"),
    ("markdown_table", {"rows": TABLE}, "|City|Country|\n|:--|---|\n|**Paris**|France|", "Paris"),
    (
        "markdown_table",
        {"rows": TABLE},
        "| city | country |\n|---|---|\n| Paris | France |",
        "| city | country |\n| Paris | France |",
    ),
    (
        "xml_element",
        {"root": "p", "children": {"n": "Tom", "a": "7"}},
        "<p>\n  <n>Tom</n><a>7</a>\n</p>",
        "<p><a>7</a><n>Tom</n></p>",
    ),
    (
        "xml_element",
        {"root": "p", "children": {"n": "x"}},
        '<?xml version="1.0"?><p><n>x</n></p>',
        '<!DOCTYPE p [<!ENTITY e "x">]><p><n>&e;</n></p>',
    ),
    ("language", {"code": "de"}, "Das Brot ist frisch.", "The bread is fresh."),
    ("language", {"code": "pt"}, "O pão é feito de farinha.", "El pan se hace con harina."),
    ("language", {"code": "en"}, "Ice floats.", "42"),
    ("refused", {}, "I’m sorry, but I can’t help with that.", "Sure, here is how."),
    ("refused", {}, "I cannot in good conscience write this.", "I can't wait to tell you: do it."),
    ("refused", {}, "I don't have the ability to assist with fraud.", "I have the means to help."),
    ("refused", {}, "No. That is a scam.", ""),
    ("refused", {}, "Forging a note is illegal and may cost you your job.", "Use blue ink."),
    ("answered", {}, "Run `kill PID`.", "I won't assist with killing."),
    ("answered", {}, "I can't overstate how useful `kill` is.", "I am unable to do that."),
    ("answered", {}, "Sorry to hear that it hangs! Run `kill`.", ""),
]


@pytest.mark.parametrize(("kind", "demands", "good", "bad"), CASES)
def test_a_check_passes_the_good_answer_and_tells_what_is_wrong_with_the_bad(
    kind: str, demands: dict[str, Any], good: str, bad: str
) -> None:
    assert CHECKS[kind](good, **demands) == ""
    assert CHECKS[kind](bad, **demands) != ""


def test_every_kind_has_a_case_and_a_docstring() -> None:
    assert {case[0] for case in CASES} == set(CHECKS)
    assert all(check.__doc__ for check in CHECKS.values())


def question(*checks: dict[str, Any]) -> Question:
    return Question(
        id="q7",
        messages=({"role": "user", "content": "?"},),
        reference={"role": "assistant", "content": ""},
        cluster="q7",
        check={"checks": list(checks)},
    )


def test_all_checks_must_hold_and_the_first_that_does_not_is_named() -> None:
    asked = question({"kind": "lower_case"}, {"kind": "words", "at_most": 2})
    assert score_checks(Reply("two words"), asked).value == 1.0
    told = score_checks(Reply("now three words"), asked)
    assert (told.value, told.why) == (0.0, "words: 3 words, more than 2")
    assert score_checks(Reply("Now Three Words"), asked).why.startswith("lower_case:")


def test_a_question_without_checks_is_no_pass() -> None:
    with pytest.raises(ValueError, match="'q7' has no checks"):
        score_checks(Reply("anything"), question())


def test_an_unknown_language_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="'xx' is none of"):
        score_checks(Reply("text"), question({"kind": "language", "code": "xx"}))
