"""Ten thousand generated rows, damaged at random places in every known way: each one is accounted
for, with its place and the kind of its damage.
"""

import csv
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.sources.reading import MESSAGES, read_files

Row = dict[str, Any]
WORDS = ["patient", "contract", "naïve", "日本", "“quoted”", "a,b", "{x}", "[y]", "back\\slash"]
NUM_ROWS = 10_000
DAMAGED_SHARE = 0.3


def text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(3, 30)))


def new_row(number: int, chance: random.Random) -> Row:
    """A sound row: a chat of one to three questions, at times with a system turn or a tool."""
    turns: list[Row] = []
    if chance.random() < 0.3:
        turns.append({"role": "system", "content": text(chance)})
    for _ in range(chance.randint(1, 3)):
        turns.append({"role": "user", "content": text(chance)})
        if chance.random() < 0.3:
            call = {"id": "c", "function": {"name": "f", "arguments": '{"x": 1}'}}
            turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
            turns.append({"role": "tool", "tool_call_id": "c", "content": text(chance)})
        turns.append({"role": "assistant", "content": text(chance)})
    return {"id": f"r{number}", "messages": turns}


def last_user(row: Row) -> Row:
    turn: Row = next(turn for turn in reversed(row["messages"]) if turn["role"] == "user")
    return turn


def change_turn(row: Row, **changes: object) -> bytes:
    last_user(row).update(changes)
    return dumped(row)


def change_row(row: Row, **changes: object) -> bytes:
    return dumped(row | changes)


def drop(row: Row, key: str) -> bytes:
    return dumped({name: value for name, value in row.items() if name != key})


def append(row: Row, *turns: Row) -> bytes:
    return dumped(row | {"messages": [*row["messages"], *turns]})


def dumped(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def image(url: str) -> list[Row]:
    return [{"type": "image_url", "image_url": {"url": url}}]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ASKED = {"role": "user", "content": "?"}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
DAMAGES: dict[str, tuple[Callable[[Row, random.Random], bytes], str]] = {
    "cut": (
        lambda row, chance: dumped(row)[: -chance.randint(1, 8)],
        "not valid (JSON: |UTF-8 at byte )",
    ),
    "two in a line": (lambda row, _: dumped(row) * 2, "not valid JSON: unexpected content after"),
    "single quotes": (lambda row, _: repr(row).encode(), "not valid JSON: "),
    "NaN": (lambda row, _: dumped(row | {"score": float("nan")}), "not valid JSON: "),
    "raw control": (
        lambda row, _: dumped(row).replace(b'"r', b'"\x02r', 1),
        "not valid JSON: unexpected control character",
    ),
    "Latin-1": (
        lambda row, _: change_turn(row, content="caf\u00e9 ol\u00e9").replace(b"\xc3\xa9", b"\xe9"),
        r"not valid UTF-8 at byte \d+$",
    ),
    "half a surrogate": (
        lambda row, _: dumped(row).replace(b'"r', b'"\\ud83dr', 1),
        "not valid JSON: ",
    ),
    "bomb": (
        lambda row, _: b'{"x": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        "not usable JSON: nested too deeply$",
    ),
    "list": (lambda row, _: dumped(list(row.values())), "the row is a list, not an object$"),
    "text": (lambda row, _: dumped(row["id"]), "the row is text, not an object$"),
    "no turns": (lambda row, _: drop(row, "messages"), r"no column `messages` \(the columns are"),
    "null": (lambda row, _: change_row(row, messages=None), "`messages` is null, not a list$"),
    "object": (
        lambda row, _: change_row(row, messages={"0": row["messages"][0]}),
        "`messages` is an object, not a list$",
    ),
    "empty list": (lambda row, _: change_row(row, messages=[]), "no assistant turn"),
    "one turn": (
        lambda row, _: change_row(row, messages=[ASKED]),
        "no assistant turn, so there is nothing to learn from it$",
    ),
    "role": (lambda row, _: change_turn(row, role="human"), r"turn \d+: role 'human' is none of"),
    "number": (lambda row, _: change_turn(row, content=5), r"turn \d+: content is a number"),
    "blank": (lambda row, _: change_turn(row, content=" \n\t"), r"turn \d+ \(user\) is empty$"),
    "NUL": (lambda row, _: change_turn(row, content="a\0b"), r"turn \d+ holds a NUL character$"),
    "endless": (
        lambda row, _: change_turn(row, content="x" * 1_000_001),
        "longer than 1,000,000 characters$",
    ),
    "twice the user": (
        lambda row, _: append(row, ASKED, ASKED),
        r"turn \d+ is user, expected assistant$",
    ),
    "unanswered call": (
        lambda row, _: append(row, ASKED, CALL, ASKED),
        r"turn \d+ is user, but the call '1' of turn \d+ waits$",
    ),
    "reply to nothing": (
        lambda row, _: append(row, {"role": "tool", "tool_call_id": "z", "content": "x"}),
        r"turn \d+ answers the call 'z', which was not made just before$",
    ),
    "arguments": (
        lambda row, _: append(
            row,
            ASKED,
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
        ),
        r"turn \d+: call 1: `arguments` is not JSON: ",
    ),
    "other tools": (
        lambda row, _: dumped(
            {"messages": [ASKED, CALL], "tools": [{"name": "g"}], "id": row["id"]}
        ),
        "turn 2 calls 'f', which is not among the row's tools$",
    ),
    "deep tools": (
        lambda row, _: change_row(row, tools=[{"name": "f", "x": nested(400)}]),
        "`tools` cannot be written as JSON: ",
    ),
    "remote image": (
        lambda row, _: change_turn(row, content=image("https://x.org/a.png")),
        r"turn \d+: the image 'https://x.org/a.png' is not within the row",
    ),
    "broken image": (
        lambda row, _: change_turn(row, content=image("data:image/png;base64,A")),
        r"turn \d+: an image is not valid base64: ",
    ),
}


def test_json_lines(tmp_path: Path) -> None:
    assert len(DAMAGES) >= 20
    chance = random.Random(20)
    expected: list[tuple[str, str]] = []
    good: list[str] = []
    lines: list[bytes] = []
    for number in range(1, NUM_ROWS + 1):
        row = new_row(number, chance)
        if chance.random() < DAMAGED_SHARE:
            # The longest one is as large as the file's other rows together: a few are enough.
            kind = chance.choice(list(DAMAGES))
            kind = "cut" if kind == "endless" and number % 16 else kind
            damage, reason = DAMAGES[kind]
            lines.append(damage(row, chance))
            expected.append((f"rows.jsonl:{number}", reason))
        else:
            lines.append(dumped(row))
            good.append(row["id"])
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    rows = read_files(file, shape=MESSAGES)
    assert rows.num_read == NUM_ROWS
    assert [row.id for row in rows.conversations] == good
    assert [reject.where for reject in rows.rejects] == [where for where, _ in expected]
    for reject, (_, reason) in zip(rows.rejects, expected, strict=True):
        assert re.match(reason, reject.reason), (reject, reason)
    told = {reason for _, reason in expected}
    assert told == {reason for _, reason in DAMAGES.values()}, "every damage was met"


CSV_DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "field missing": (lambda line: line[: line.rindex(b",")], "2 fields instead of 3$"),
    "field too many": (lambda line: line + b",x", "4 fields instead of 3$"),
    "quote never closed": (
        lambda line: line[: line.index(b",")] + b',"a,b',
        "(more after the quote that closes a field|a quote is opened and never closed)",
    ),
    "quote within": (
        lambda line: line[: line.index(b",")] + b',"a "b" c",d',
        "more after the quote that closes a field",
    ),
    "Latin-1": (lambda line: line + b" caf\xe9", "not valid UTF-8$"),
    "empty": (lambda line: line[: line.rindex(b",") + 1], "`a` is empty$"),
    "NUL": (lambda line: line + b" \0", "turn 2 holds a NUL character$"),
}


def test_csv(tmp_path: Path) -> None:
    chance = random.Random(21)
    content = b"id,q,a\n"
    line_number, expected, good = 2, [], []
    for number in range(NUM_ROWS):
        question = text(chance) + ("\nand more" if chance.random() < 0.1 else "")
        record = io.StringIO(newline="")
        csv.writer(record, lineterminator="\n").writerow([number, question, f"answer {number}"])
        line = record.getvalue().encode().removesuffix(b"\n")
        if chance.random() < DAMAGED_SHARE and b"\n" not in line:
            damage, reason = CSV_DAMAGES[chance.choice(list(CSV_DAMAGES))]
            line = damage(line)
            expected.append((f"rows.csv:{line_number}", reason))
        else:
            good.append(str(number))
        content += line + b"\n"
        line_number += line.count(b"\n") + 1
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    rows = read_files(file)
    assert rows.num_read == NUM_ROWS
    assert [row.id for row in rows.conversations] == good
    assert [reject.where for reject in rows.rejects] == [where for where, _ in expected]
    for reject, (_, reason) in zip(rows.rejects, expected, strict=True):
        assert re.match(reason, reject.reason), (reject, reason)
