from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.data_schema import MixturePart, VotesSource
from configs.errors import UserError
from data.conversation import ReadRows, Reject
from data.fingerprint import source_fingerprint
from data.load_source import open_source
from data.sources.votes import (
    BOTH_BAD,
    CHOSEN_NOT_NAMED,
    OUTVOTED,
    REJECTED_NOT_NAMED,
    REPEATED,
    TIE,
    UNSETTLED,
)
from data.steps.preparation import label_of
from data.votes import Choice, Vote, append_vote
from tests.data.cast_votes import cast, keep
from tests.data.sources.reading import read_all

PROMPT = {"role": "user", "content": "Which number is it?"}


def source(path: Path | list[Path], **options: object) -> VotesSource:
    return VotesSource.model_validate({"kind": "votes", "path": path} | options)


def read(folder: Path, *votes: Vote, **options: object) -> ReadRows:
    file = keep(folder / "votes.jsonl", votes)
    return read_all(open_source(source(file, **options)))


def pairs(rows: ReadRows) -> list[tuple[Any, Any]]:
    """Chosen and rejected text of each row."""
    return [
        (row.messages[-1]["content"], row.rejected and row.rejected["content"])
        for row in rows.conversations
    ]


def test_a_decided_vote_is_a_pair(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}]
    system = {"role": "system", "content": "Count."}
    votes = [
        cast(number=1, choice="a"),
        cast(number=2, choice="b", messages=[system, PROMPT], tools=tools),
    ]
    rows = read(tmp_path, *votes)
    assert pairs(rows) == [("It is 4.", "Who knows?"), ("Who knows?", "It is 4.")]
    first, second = rows.conversations
    assert (first.id, first.where) == ("vote-1", "votes.jsonl:1")
    assert (second.id, second.where) == ("vote-2", "votes.jsonl:2")
    assert [turn["role"] for turn in second.messages] == ["system", "user", "assistant"]
    assert first.tools == ()
    assert second.tools == tuple(tools)
    assert first.group != second.group


def test_one_prompt_is_one_group_whoever_answered_and_with_whatever_parameters(
    tmp_path: Path,
) -> None:
    rows = read(
        tmp_path,
        cast(number=1),
        cast(number=2, answers=("4", "5"), models=("x", "y"), parameters={}),
        cast("Another?", number=3),
    )
    first, second, third = (row.group for row in rows.conversations)
    assert first == second != third
    assert first


def test_calls_of_tools_are_chosen_and_rejected(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "count", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    rows = read(tmp_path, cast(a={"model": "ours", "message": called}))
    (row,) = rows.conversations
    assert row.messages[-1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert row.rejected == {"role": "assistant", "content": "Who knows?"}


def test_votes_without_a_winner_are_counted(tmp_path: Path) -> None:
    choices: list[Choice] = ["tie", "a", "both_bad", "tie"]
    rows = read(tmp_path, *(cast(str(n), number=n, choice=c) for n, c in enumerate(choices)))
    assert [row.id for row in rows.conversations] == ["vote-1"]
    assert rows.dropped == {TIE: 2, BOTH_BAD: 1}


def test_answers_that_cannot_be_compared_are_rejects_with_their_place(tmp_path: Path) -> None:
    url = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    rows = read(
        tmp_path,
        cast("One?", number=1, answers=("Four.", " Four.\n")),
        cast("Two?", number=2, answers=("", "Four.")),
        cast("Three?", number=3, answers=("Four.", "")),
        cast("Four?", number=4, answers=("Four.", None)),
        cast(number=5, messages=[{"role": "user", "content": [url]}]),
        cast(number=6, messages=[PROMPT, PROMPT]),
    )
    assert rows.conversations == []
    assert [(one.where, one.reason) for one in rows.rejects] == [
        ("votes.jsonl:1", "the preferred and the rejected answer are the same"),
        ("votes.jsonl:2", "turn 2 (assistant) is empty"),
        ("votes.jsonl:3", "the rejected answer is empty"),
        ("votes.jsonl:4", "turn 2: content is null, not text"),
        (
            "votes.jsonl:5",
            "turn 1: the image 'https://example.org/x.png' is not within the row: give a "
            "`data:image/…;base64,` URL, nothing is fetched",
        ),
        ("votes.jsonl:6", "turn 2 is user, expected assistant"),
    ]


def test_a_broken_line_is_a_reject_and_a_cut_one_is_not_there(tmp_path: Path) -> None:
    file = keep(tmp_path / "votes.jsonl", [cast(number=1)])
    file.write_bytes(file.read_bytes() + b'{"id": 3}\n')
    append_vote(file, cast(number=2))
    file.write_bytes(file.read_bytes() + b'{"id": "vo')
    rows = read_all(open_source(source(file)))
    assert [row.where for row in rows.conversations] == ["votes.jsonl:1", "votes.jsonl:3"]
    assert rows.rejects == [
        Reject(where="votes.jsonl:2", reason="not a vote: messages: Field required")
    ]


# Votes that disagree.


def test_the_majority_on_the_same_two_answers_counts(tmp_path: Path) -> None:
    choices: list[Choice] = ["a", "b", "a", "a"]
    votes = [cast(number=n, choice=choice) for n, choice in enumerate(choices)]
    # The same two answers the other way round: a vote for "It is 4." as well.
    turned = cast(number=4, choice="b", answers=("Who knows?", "It is 4."))
    rows = read(tmp_path, *votes, turned)
    assert [row.id for row in rows.conversations] == ["vote-0", "vote-2", "vote-3", "vote-4"]
    assert set(pairs(rows)) == {("It is 4.", "Who knows?")}
    assert rows.dropped == {OUTVOTED: 1}


def test_as_many_for_one_as_for_the_other_say_nothing(tmp_path: Path) -> None:
    choices: list[Choice] = ["a", "b", "b", "a"]
    votes = [cast(number=n, choice=choice) for n, choice in enumerate(choices)]
    other = cast(number=9, choice="b", answers=("It is 4.", "It is 5."))
    rows = read(tmp_path, *votes, other, cast("Other?", number=10, choice="b"))
    assert [row.id for row in rows.conversations] == ["vote-9", "vote-10"]
    assert rows.dropped == {UNSETTLED: 4}


def test_the_report_tells_how_the_votes_went(tmp_path: Path) -> None:
    choices: list[Choice] = ["a", "b", "b", "a", "a"]
    votes = [cast(number=n, choice=choice) for n, choice in enumerate(choices)]
    file = keep(tmp_path / "votes.jsonl", [*votes, cast(number=9, choice="tie")])
    assert open_source(source(file)).told == (
        "6 votes of the workbench, 5 taken (chosen: ours 3, theirs 2); 2 of these contradict "
        "others on the same two answers and are out"
    )
    file.write_bytes(b"")
    keep(file, votes[:1])
    assert open_source(source(file)).told == ("1 vote of the workbench, 1 taken (chosen: ours 1)")


# Which votes.


def test_only_votes_for_and_against_certain_models(tmp_path: Path) -> None:
    votes = [
        cast("1", number=1, choice="a"),
        cast("2", number=2, choice="b"),
        cast("3", number=3, choice="b", models=("base", "ours")),
    ]
    file = keep(tmp_path / "votes.jsonl", votes)

    def ids(**options: object) -> tuple[list[str], dict[str, int]]:
        rows = read_all(open_source(source(file, **options)))
        return [row.id for row in rows.conversations], dict(rows.dropped)

    assert ids(chosen_models=["ours"]) == (["vote-1", "vote-3"], {CHOSEN_NOT_NAMED: 1})
    assert ids(chosen_models=["theirs", "ours"]) == (["vote-1", "vote-2", "vote-3"], {})
    assert ids(rejected_models=["theirs"]) == (["vote-1"], {REJECTED_NOT_NAMED: 2})
    both = ids(chosen_models=["ours"], rejected_models=["base"])
    assert both == (["vote-3"], {CHOSEN_NOT_NAMED: 1, REJECTED_NOT_NAMED: 1})
    with pytest.raises(ValidationError):
        source(file, chosen_models=[])


def test_several_files_with_votes_in_common(tmp_path: Path) -> None:
    first = keep(tmp_path / "a" / "votes.jsonl", [cast("1", number=1), cast("2", number=2)])
    second = keep(tmp_path / "b" / "votes.jsonl", [cast("2", number=2), cast("3", number=3)])
    for path in ([first, second], tmp_path / "*" / "votes.jsonl"):
        rows = read_all(open_source(source(path)))
        assert [(row.id, row.where) for row in rows.conversations] == [
            ("vote-1", "a/votes.jsonl:1"),
            ("vote-2", "a/votes.jsonl:2"),
            ("vote-3", "b/votes.jsonl:2"),
        ]
        assert rows.dropped == {REPEATED: 1}
    with pytest.raises(UserError):
        open_source(source(tmp_path / "none.jsonl"))


def test_more_votes_are_other_rows(tmp_path: Path) -> None:
    file = keep(tmp_path / "votes.jsonl", [cast(number=1)])
    before = source_fingerprint(source(file))
    assert before == source_fingerprint(source(file))
    append_vote(file, cast(number=2))
    assert before != source_fingerprint(source(file))
    assert label_of(source(file)) == "votes.jsonl"
    assert MixturePart(source=source(file)).source.kind == "votes"
