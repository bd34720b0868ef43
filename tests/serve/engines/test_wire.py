from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.engine import (
    Alternative,
    ChoiceEnd,
    ContextExceeded,
    EngineError,
    EngineUnavailable,
    Event,
    Overloaded,
    RequestRefused,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from serve.engines.wire import ChunkReader, EventStreamReader, Json

STREAM = (
    ": keep-alive\n\n"
    'data: {"a": "äöü 🚀"}\n\n'
    'event: message\r\ndata:{"b":\r\ndata: 2}\r\nid: 7\r\n\r\n'
    "\n\n"
    'error: {"c": 3}\n\n'
    "data: [DONE]\n\n"
).encode()
PAYLOADS = [{"a": "äöü 🚀"}, {"b": 2}, {"c": 3}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def chunk(delta: Json | None = None, *, reason: str | None = None, index: int = 0) -> Json:
    return {"choices": [{"index": index, "delta": delta or {}, "finish_reason": reason}]}


def read(*chunks: Json, num_choices: int = 1) -> list[Event]:
    """All events of a stream of chunks, through JSON as hosts send them."""
    reader = ChunkReader(num_choices=num_choices)
    events = [event for one in chunks for event in reader.feed(orjson.loads(orjson.dumps(one)))]
    return events + reader.end()


def calls(*pieces: Json) -> list[ToolCallDelta]:
    """The events of calls that come in these pieces, one a chunk."""
    chunks = [chunk({"tool_calls": [piece]}) for piece in pieces]
    *told, end = read(*chunks, chunk(reason="tool_calls"))
    assert end == ChoiceEnd(reason="tool_calls")
    assert all(isinstance(event, ToolCallDelta) for event in told)
    return [event for event in told if isinstance(event, ToolCallDelta)]


def function(name: str | None = None, arguments: object = None) -> Json:
    return {
        key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None
    }


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_are_the_same_however_their_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    reader = EventStreamReader()
    payloads = [
        payload for start, end in pairwise(places) for payload in reader.feed(STREAM[start:end])
    ]
    assert payloads[-1] == b"[DONE]"
    assert [orjson.loads(payload) for payload in payloads[:-1]] == PAYLOADS


def test_an_event_without_end_is_not_gathered_for_ever() -> None:
    reader = EventStreamReader()
    with pytest.raises(EngineError, match="does not end"):
        for _ in range(40):
            list(reader.feed(b"x" * 2**20))


def test_roles_nulls_and_empty_pieces_say_nothing() -> None:
    events = read(
        {"choices": [], "prompt_filter_results": []},
        chunk({"role": "assistant", "content": None}),
        chunk({"role": "assistant", "content": "", "tool_calls": None}),
        chunk({"content": "Hal"}),
        chunk({"content": "lo", "role": "assistant"}),
        chunk(reason="stop"),
        {"choices": [], "usage": USAGE},
    )
    hal, lo = TextDelta(text="Hal"), TextDelta(text="lo")
    usage = Usage(prompt_tokens=5, completion_tokens=2)
    assert events == [hal, lo, ChoiceEnd(reason="stop"), usage]


@pytest.mark.parametrize("where", ["with the end", "in each chunk", "after a repeated end"])
def test_usage_is_the_last_event_wherever_a_host_tells_it(where: str) -> None:
    growing = {"prompt_tokens": 5, "completion_tokens": 1}
    streams = {
        "with the end": [chunk({"content": "a"}), chunk(reason="stop") | {"usage": USAGE}],
        "in each chunk": [
            chunk({"content": "a"}) | {"usage": growing},
            chunk(reason="stop") | {"usage": USAGE},
        ],
        "after a repeated end": [
            chunk({"content": "a"}) | {"usage": None},
            chunk(reason="stop"),
            chunk({"content": ""}, reason="stop") | {"usage": USAGE},
        ],
    }
    usage = Usage(prompt_tokens=5, completion_tokens=2)
    assert read(*streams[where]) == [TextDelta(text="a"), ChoiceEnd(reason="stop"), usage]


def test_a_host_that_does_not_count_leaves_usage_out() -> None:
    ended = [chunk({"content": "a"}), chunk(reason="stop") | {"usage": {"prompt_tokens": None}}]
    assert read(*ended) == [TextDelta(text="a"), ChoiceEnd(reason="stop")]


def test_several_answers_in_turns_and_an_end_for_each() -> None:
    events = read(
        chunk({"content": "a"}),
        chunk({"content": "b"}, index=1),
        chunk(reason="length", index=1),
        chunk(reason="stop"),
        num_choices=2,
    )
    assert events == [
        TextDelta(text="a"),
        TextDelta(text="b", choice=1),
        ChoiceEnd(reason="length", choice=1),
        ChoiceEnd(reason="stop"),
    ]


@pytest.mark.parametrize("num_choices", [1, 2])
def test_an_answer_without_end_is_no_answer(num_choices: int) -> None:
    chunks = [chunk({"content": "a"})]
    if num_choices == 2:
        chunks.append(chunk(reason="stop", index=1))
    with pytest.raises(EngineUnavailable, match="broke the answer off"):
        read(*chunks, num_choices=num_choices)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
    ],
)
def test_reasons_of_all_hosts(host: str, ours: str) -> None:
    assert read(chunk({"content": "a"}), chunk(reason=host))[-1] == ChoiceEnd(reason=ours)  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["error", "a new one"])
def test_a_reason_that_is_none_of_ours_is_an_error(reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        read(chunk(reason=reason))


def test_an_answer_that_the_host_gave_up_may_be_asked_for_again() -> None:
    with pytest.raises(EngineUnavailable):
        read(chunk(reason="abort"))


def test_a_call_in_pieces() -> None:
    assert calls(
        {"index": 0, "id": "abc", "type": "function", "function": function("find", "")},
        {"index": 0, "function": function(arguments='{"a":')},
        {"index": 0, "function": function(arguments="1}")},
    ) == [
        ToolCallDelta(call=0, id="abc", name="find"),
        ToolCallDelta(call=0, arguments='{"a":'),
        ToolCallDelta(call=0, arguments="1}"),
    ]


def test_ids_and_names_that_are_repeated_are_told_once() -> None:
    piece = {"index": 0, "id": "abc", "function": function("find", "{")}
    assert calls(piece, piece | {"function": function("find", "}")}) == [
        ToolCallDelta(call=0, id="abc", name="find", arguments="{"),
        ToolCallDelta(call=0, arguments="}"),
    ]


def test_whole_calls_without_numbers_and_with_objects_as_arguments() -> None:
    told = calls(
        {"id": "abc", "function": function("find", {"n": 1})},
        {"id": "def", "function": function("find", {"n": "ü"})},
        {"function": function("find", "{}")},
    )
    assert [(event.call, event.id, event.arguments) for event in told[:2]] == [
        (0, "abc", '{"n":1}'),
        (1, "def", '{"n":"ü"}'),
    ]
    assert told[2].call == 2
    assert told[2].id is not None
    assert len(told[2].id) == 9
    assert told[2].id.isalnum()


def test_pieces_without_numbers_belong_to_the_last_call() -> None:
    told = calls(
        {"id": "abc", "function": function("find")},
        {"function": function(arguments="{}")},
        {"id": "abc", "function": function(arguments=" ")},
    )
    assert [event.call for event in told] == [0, 0, 0]
    assert "".join(event.arguments for event in told) == "{} "


def test_calls_that_all_have_number_zero_are_told_apart_by_id_and_name() -> None:
    told = calls(
        {"index": 0, "id": "abc", "function": function("find", "{}")},
        {"index": 0, "id": "def", "function": function("show", "{")},
        {"index": 0, "id": "", "function": function(arguments="}")},
    )
    assert [(event.call, event.name) for event in told] == [(0, "find"), (1, "show"), (1, None)]


def test_calls_whose_numbers_begin_at_one() -> None:
    piece = {"index": 1, "id": "abc", "function": function("find", "{}")}
    assert [event.call for event in calls(piece)] == [0]


def test_a_call_whose_name_comes_late_begins_with_it() -> None:
    assert calls(
        {"index": 0, "id": "null", "function": function(arguments='{"a"')},
        {"index": 0, "id": "abc", "function": function("find", ":1}")},
    ) == [ToolCallDelta(call=0, id="abc", name="find", arguments='{"a":1}')]


def test_arguments_are_an_object_even_where_there_are_none() -> None:
    told = calls({"index": 0, "id": "abc", "function": function("find", "")})
    assert "".join(event.arguments for event in told) == "{}"


def test_a_call_without_a_name_is_an_error() -> None:
    with pytest.raises(EngineError, match="naming"):
        calls({"index": 0, "id": "abc", "function": function(arguments="{}")})


def test_a_function_call_of_old() -> None:
    events = read(
        chunk({"function_call": function("find", "")}),
        chunk({"function_call": function(arguments="{}")}),
        chunk(reason="function_call"),
    )
    assert [event.arguments for event in events if isinstance(event, ToolCallDelta)] == ["", "{}"]
    assert events[-1] == ChoiceEnd(reason="tool_calls")


def test_an_answer_that_stops_after_a_forced_call_ends_with_calls() -> None:
    piece = {"index": 0, "id": "abc", "function": function("find", "{}")}
    assert read(chunk({"tool_calls": [piece]}), chunk(reason="stop"))[-1] == ChoiceEnd(
        reason="tool_calls"
    )


def test_logprobs_with_bytes_and_without() -> None:
    top = [{"token": "b", "logprob": -1.5, "bytes": None}]
    tokens = [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": top},
        {"token": "ü", "logprob": -2, "bytes": None},
    ]
    said = chunk({"content": "aü"})
    said["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    expected = (
        TokenLogprob(
            token="a",
            utf8=b"a",
            logprob=-0.5,
            top=(Alternative(token="b", utf8=b"b", logprob=-1.5),),
        ),
        TokenLogprob(token="ü", utf8="ü".encode(), logprob=-2),
    )
    assert read(said, chunk(reason="stop"))[0] == TextDelta(text="aü", logprobs=expected)


def test_logprobs_of_tokens_within_a_character_come_with_the_character() -> None:
    whole = "ü".encode()
    chunks = []
    for text, byte in (("", whole[0]), ("ü", whole[1])):
        said = chunk({"content": text})
        token = {"token": "\ufffd", "logprob": -1, "bytes": [byte]}
        said["choices"][0]["logprobs"] = {"content": [token]}
        chunks.append(said)
    (delta, *_) = read(*chunks, chunk(reason="stop"))
    assert isinstance(delta, TextDelta)
    assert b"".join(token.utf8 for token in delta.logprobs) == whole


def test_a_refusal_and_content_in_parts_are_text() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "b"}]
    events = read(chunk({"refusal": "a"}), chunk({"content": parts}), chunk(reason="stop"))
    assert events[:2] == [TextDelta(text="a"), TextDelta(text="b")]


def test_a_whole_answer_of_a_host_that_does_not_stream() -> None:
    message = {
        "role": "assistant",
        "content": "a",
        "tool_calls": [{"id": "abc", "function": function("find", "{}")}],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    assert read({"choices": [choice], "usage": USAGE}) == [
        TextDelta(text="a"),
        ToolCallDelta(call=0, id="abc", name="find", arguments="{}"),
        ChoiceEnd(reason="tool_calls"),
        Usage(prompt_tokens=5, completion_tokens=2),
    ]


FLAT = {"object": "error", "message": "too hot", "code": 400}


@pytest.mark.parametrize(
    ("error", "before"),
    [
        ({"error": {"message": "too hot", "type": "x", "code": 400}}, RequestRefused),
        (FLAT, RequestRefused),
        ({"error": {"message": "too hot", "type": "x", "code": 429}}, Overloaded),
        ({"error": {"message": "too hot", "type": "x", "code": 503}}, EngineUnavailable),
        ({"error": {"message": "too hot"}}, EngineError),
        ({"error": "too hot", "choices": []}, EngineError),
    ],
)
def test_errors_within_a_stream(error: Json, before: type[Exception]) -> None:
    with pytest.raises(before):
        read(error)
    with pytest.raises(EngineError):  # from then on nothing is the request's fault
        read(chunk({"content": "a"}), error)


def test_a_context_error_within_a_stream_has_its_counts() -> None:
    error = {"code": 400, "message": "too long", "type": "exceed_context_size_error"}
    with pytest.raises(ContextExceeded) as caught:
        read({"error": error | {"n_prompt_tokens": 4011, "n_ctx": 1024}})
    assert (caught.value.prompt_tokens, caught.value.context_length) == (4011, 1024)
