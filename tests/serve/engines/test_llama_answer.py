from typing import Any

import pytest

from serve.engine import ChoiceEnd, Event, TextDelta
from serve.engines.llama_answer import AnswerReader
from tests.serve.engines.asking import request, user


def chunk(text: str) -> dict[str, Any]:
    """As llama.cpp sends it: a piece of text with what it tells of its token."""
    told = {"token": text, "bytes": list(text.encode()), "logprob": -1.0, "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"choices": [choice | {"logprobs": {"content": [told]}}]}


def read(*pieces: str, stop: tuple[str, ...]) -> list[Event]:
    reader = AnswerReader(request(user("a"), stop=stop, top_logprobs=0), 0, asked=b"")
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    chunks = [*map(chunk, pieces), end]
    return [event for one in chunks for event in reader.feed(one)]


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        # What may begin a stop string waits, and so does what is told of it.
        (("b", "c", "d"), ("bx", "cd"), [("b", ["b"])]),
        (("b", "c", "e"), ("bx", "cd"), [("b", ["b"]), ("ce", ["c", "e"])]),
        # A token of which something goes out is told of.
        (("abc", "d"), ("cd",), [("ab", ["abc"])]),
        (("ab", "c"), ("never",), [("ab", ["ab"]), ("c", ["c"])]),
        (("a", "n"), ("never",), [("a", ["a"]), ("n", ["n"])]),
        (("ab", "c"), ("ab",), []),
    ],
)
def test_what_is_told_of_tokens_goes_with_their_text(
    pieces: tuple[str, ...], stop: tuple[str, ...], expected: list[tuple[str, list[str]]]
) -> None:
    events = read(*pieces, stop=stop)
    assert events[-1] == ChoiceEnd(reason="stop")
    deltas = [event for event in events if isinstance(event, TextDelta)]
    found = [(event.text, [one.token for one in event.logprobs]) for event in deltas]
    assert found == expected
    assert len(deltas) == len(events) - 1
