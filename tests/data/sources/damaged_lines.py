"""Lines of a JSON Lines file that hold no usable row, and the reason that each is rejected for."""

DAMAGED_LINES: list[tuple[bytes, str]] = [
    (b'{"prompt": "q", "completion": ', "not valid JSON: Expecting value at column 31"),
    (b"prompt,completion", "not valid JSON: Expecting value at column 1"),
    (b'{"prompt": "q"} {"prompt": "q"}', "not valid JSON: Extra data at column 17"),
    (b'{"prompt": "caf\xe9", "completion": "a"}', "not valid UTF-8 at byte 15"),
    (b"[1, 2]", "a line is list, not an object"),
    (b"{}", "neither `messages` nor `prompt` and `completion` (found: no keys)"),
    (
        b'{"question": "q", "answer": "a"}',
        "neither `messages` nor `prompt` and `completion` (found: answer, question)",
    ),
    (
        b'{"\\ud83d": "q"}',
        "neither `messages` nor `prompt` and `completion` (found: \\ud83d)",
    ),
    (b'{"messages": {"role": "user"}}', "`messages` is dict, not a list"),
    (b'{"messages": ["hello"]}', "turn 1 is str, not an object"),
    (
        b'{"messages": [{"role": "human", "content": "q"}]}',
        "turn 1: role 'human' is none of system, user, assistant",
    ),
    (b'{"prompt": "q", "completion": null}', "turn 2: content is NoneType, not text"),
    (
        b'{"messages": [{"role": "user", "content": "q"}]}',
        "no assistant turn, so there is nothing to learn from it",
    ),
    (
        b'{"messages": [{"role": "assistant", "content": "a"}]}',
        "turn 1 is assistant, expected user",
    ),
    (b'{"prompt": "q", "completion": "  "}', "turn 2 (assistant) is empty"),
    (b'{"prompt": "q\\u0000", "completion": "a"}', "turn 1 holds a NUL character"),
    (
        b'{"prompt": "q", "completion": "\\ud83d"}',
        "turn 2 holds half of a surrogate pair, which is no character",
    ),
    (
        b'{"id": "\\ud83d", "prompt": "q", "completion": "a"}',
        "`id` holds half of a surrogate pair, which is no character",
    ),
    (
        b'{"prompt": "' + b"q" * 1_000_000 + b'", "completion": "a"}',
        "longer than 1,000,000 characters",
    ),
    (
        b'{"prompt": ' + b"9" * 5000 + b', "completion": "a"}',
        "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
        "use sys.set_int_max_str_digits() to increase the limit",
    ),
    (b"[" * 100_000, "not usable JSON: nested too deeply"),
]
