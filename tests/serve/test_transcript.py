import time

import pytest

from serve.engine import ChoiceEnd, TextDelta, ToolCallDelta, Usage
from serve.transcript import Answer, CalledTool, Transcript, are_equal


def call(arguments: str, name: str = "search") -> list[Answer]:
    return [Answer(calls=[CalledTool(name=name, arguments=arguments)], reason="tool_calls")]


def test_pieces_that_come_in_turns_make_whole_answers() -> None:
    transcript = Transcript()
    time.sleep(0.01)
    for event in (
        TextDelta(text="Let me ", choice=1),
        ToolCallDelta(call=0, id="c0", name="search", choice=0),
        ToolCallDelta(call=1, id="c1", name="add", arguments='{"a"', choice=0),
        TextDelta(text="think.", choice=1),
        ToolCallDelta(call=0, arguments="{}", choice=0),
        ToolCallDelta(call=1, arguments=": 1}", choice=0),
        ChoiceEnd(reason="length", choice=1),
    ):
        transcript.add(event)
    assert not transcript.complete
    transcript.add(ChoiceEnd(reason="tool_calls", choice=0))
    assert transcript.complete, "a host need not count tokens"
    transcript.add(Usage(prompt_tokens=3, completion_tokens=9))
    assert transcript.complete
    assert transcript.answers() == [
        Answer(
            calls=[
                CalledTool(name="search", arguments="{}"),
                CalledTool(name="add", arguments='{"a": 1}'),
            ],
            reason="tool_calls",
        ),
        Answer(text="Let me think.", reason="length"),
    ]
    assert transcript.first_token_s is not None
    assert 0.01 <= transcript.first_token_s <= transcript.total_s


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([Answer(text=" The river\nis  long. ")], [Answer(text="The river is long.")]),
        ([Answer(text="caf\u00e9")], [Answer(text="cafe\u0301")]),
        (call('{"a": 1, "b": [true]}'), call('{"b":[true],"a":1.0}')),
        (call("no json"), call("no json")),
        ([Answer(text="a", reason="stop")], [Answer(text="a", reason="length")]),
    ],
)
def test_what_counts_as_the_same(ours: list[Answer], theirs: list[Answer]) -> None:
    assert are_equal(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([Answer(text="The river")], [Answer(text="the river")]),
        ([Answer(text="6 m")], [Answer(text="6m")]),
        (call('{"a": 1}'), call('{"a": true}')),
        (call('{"a": 1}'), call('{"a": "1"}')),
        (call("{}"), call("{}", name="find")),
        (call("{}"), [*call("{}"), *call("{}")]),
        (call('{"a": 1'), call('{"a": 1}')),
        ([], [Answer()]),
    ],
)
def test_what_counts_as_different(ours: list[Answer], theirs: list[Answer]) -> None:
    assert not are_equal(ours, theirs)


def test_arguments_nested_too_deep_to_parse_are_compared_as_text() -> None:
    deep = "[" * 100_000
    assert are_equal(call(deep), call(deep))
