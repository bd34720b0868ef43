"""Lines of a JSON Lines file of `messages` that hold no usable row, with the reason of each."""

import json

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
GOOD_LINE = json.dumps({"messages": [USER, ASSISTANT]}).encode()


def turns(*messages: object, **more: object) -> bytes:
    """A line of these turns, not all of which need be turns."""
    return json.dumps({"messages": messages} | more).encode()


def call(id: str, name: str = "f", arguments: object = "{}") -> dict[str, object]:
    """An assistant's turn that calls a tool."""
    made = {"id": id, "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [made]}


def image(url: str) -> dict[str, object]:
    """A user's turn that shows an image."""
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


DAMAGED_LINES: list[tuple[bytes, str]] = [
    # not JSON
    (GOOD_LINE[:-1], "not valid JSON: unexpected end of data at character 87"),
    (b"prompt,completion", "not valid JSON: unexpected character, expected a JSON value at "),
    (b"{} {}", "not valid JSON: unexpected content after document at character 4"),
    (b"{'messages': []}", "not valid JSON: unexpected character, expected a string key at "),
    (b'{"messages": NaN}', "not valid JSON: unexpected character, expected a JSON value at "),
    (b'{"messages": "\x01"}', "not valid JSON: unexpected control character in string at "),
    (b'{"messages": ' + b"9" * 5000 + b"}", "not valid JSON: number is infinity when parsed"),
    (b"[" * 100_000, "not usable JSON: nested too deeply"),
    # not characters
    (b'{"messages": "caf\xe9"}', "not valid UTF-8 at byte 18"),
    (b'{"messages": "\\ud83d"}', "not valid JSON: no low surrogate in string at character 15"),
    (turns({**USER, "content": "q\0"}, ASSISTANT), "turn 1 holds a NUL character"),
    (turns(USER, ASSISTANT, id="\0"), "`id` holds a NUL character"),
    # of another type
    (b"[1, 2]", "the row is a list, not an object"),
    (b"null", "the row is null, not an object"),
    (b"{}", "no column `messages` (the columns are: none)"),
    (b'{"prompt": "q", "completion": "a"}', "no column `messages` (the columns are: prompt, com"),
    (b'{"messages": {"role": "user"}}', "`messages` is an object, not a list"),
    (b'{"messages": null}', "`messages` is null, not a list"),
    (turns("hello"), "turn 1 is text, not an object"),
    (turns({"role": "human", "content": "q"}), "turn 1: role 'human' is none of system, user, as"),
    (turns({"content": "q"}, ASSISTANT), "turn 1: role None is none of system, user, assistant"),
    (turns(USER, {**ASSISTANT, "content": None}), "turn 2: content is null, not text"),
    (turns(USER, {**ASSISTANT, "content": 7}), "turn 2: content is a number, not text"),
    # empty, too long, in the wrong order
    (turns(), "no assistant turn, so there is nothing to learn from it"),
    (turns(USER), "no assistant turn, so there is nothing to learn from it"),
    (turns(USER, {**ASSISTANT, "content": " \n"}), "turn 2 (assistant) is empty"),
    (turns({**USER, "content": ""}, ASSISTANT), "turn 1 (user) is empty"),
    (turns(ASSISTANT), "turn 1 is assistant, expected user"),
    (turns(USER, ASSISTANT, ASSISTANT), "turn 3 is assistant, expected user"),
    (
        turns(USER, ASSISTANT, {"role": "system", "content": "s"}),
        "turn 3 is system, expected user",
    ),
    (turns({**USER, "content": "q" * 1_000_000}, ASSISTANT), "longer than 1,000,000 characters"),
    # tools and images
    (turns(USER, call("1"), ASSISTANT), "turn 3 is assistant, but the call '1' of turn 2 waits"),
    (
        turns(USER, call("1"), {"role": "tool", "tool_call_id": "2", "content": "x"}),
        "turn 3 answers the call '2', which was not made just before",
    ),
    (turns(USER, call("1", arguments="{")), "turn 2: call 1: `arguments` is not JSON: unexpected"),
    (turns(USER, call("1", name="")), "turn 2: call 1 names no function"),
    (
        turns(USER, call("1"), tools=[{"name": "g"}]),
        "turn 2 calls 'f', which is not among the row's tools",
    ),
    (turns(USER, ASSISTANT, tools={"name": "g"}), "`tools` is an object, not a list"),
    (turns(image("https://x.org/a.png"), ASSISTANT), "turn 1: the image 'https://x.org/a.png' is"),
    (turns(image("data:image/png;base64,%"), ASSISTANT), "turn 1: an image is not valid base64"),
    (
        turns({"role": "user", "content": [{"type": "audio"}]}, ASSISTANT),
        "turn 1: part 1 is of type 'audio'; `text` and `image_url` are read",
    ),
]
