import pytest

from configs.errors import UserError
from data.checks import RowError
from tests.data.shapes.conftest import Convert


def test_templates_make_the_two_turns(convert: Convert) -> None:
    row = {"q": "one & <two>", "tags": ["a", "b"], "a": {"text": "yes"}, "n": 2}
    turns = convert(
        row,
        kind="template",
        prompt="{{ q }}\n\n{% for tag in tags %}[{{ tag }}]{% endfor %}\n",
        answer="{{ a.text | upper }} {{ n + 1 }}",
    )
    assert [turn["content"] for turn in turns.messages] == ["one & <two>\n\n[a][b]", "YES 3"]


@pytest.mark.parametrize("name", ["prompt", "answer"])
def test_a_missing_column_is_told(name: str, convert: Convert) -> None:
    shape = {"kind": "template", "prompt": "{{ q }}", "answer": "{{ q }}", name: "{{ query }}"}
    with pytest.raises(RowError) as caught:
        convert({"q": "1"}, **shape)
    told = f"the template of '{name}' asks for what is not there: 'query' is undefined"
    assert str(caught.value) == told


def test_a_letter_beyond_the_alphabet_is_told_not_left_empty(convert: Convert) -> None:
    with pytest.raises(RowError, match="has no element 4"):
        convert({"q": "1", "a": 4}, kind="template", prompt="{{ q }}", answer="{{ 'ABCD'[a] }}")


@pytest.mark.parametrize("template", ["{{ q + 1 }}", "{{ 1 / 0 }}", "{{ q.__class__.mro() }}"])
def test_a_template_that_fails_on_a_row_is_told(template: str, convert: Convert) -> None:
    with pytest.raises(RowError, match=r"the template of 'prompt' (fails|asks for)"):
        convert({"q": "1", "a": "x"}, kind="template", prompt=template, answer="{{ a }}")


@pytest.mark.parametrize("template", ["{{ q", "{% for x in q %}", "{{ q | nosuchfilter }}"])
def test_a_template_that_is_no_template_is_the_users_to_mend(
    template: str, convert: Convert
) -> None:
    with pytest.raises(UserError, match="the template of 'answer' is not valid Jinja: "):
        convert({"q": "1"}, kind="template", prompt="{{ q }}", answer=template)


def test_an_empty_cell_is_no_answer(convert: Convert) -> None:
    with pytest.raises(RowError, match=r"turn 2 \(assistant\) is empty"):
        convert({"q": "1", "a": None}, kind="template", prompt="{{ q }}", answer="{{ a }}")
