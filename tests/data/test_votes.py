import fcntl
import json
import multiprocessing
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import ValidationError

from configs.errors import UserError
from data.votes import (
    READ_BYTES,
    PostedVote,
    Vote,
    VoteCount,
    append_vote,
    count_votes,
    read_votes,
)
from tests.data.cast_votes import cast, keep, posted

NUM_WRITERS, NUM_VOTES = 3, 40


# What a vote is.


def test_a_vote_is_kept_as_it_was_cast(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "count", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    given = posted(
        a={"model": "ours", "target": "variant", "message": answer},
        tools=[{"type": "function", "function": {"name": "count"}}],
    )
    vote = Vote.of(PostedVote.model_validate(given), client="anna")
    file = tmp_path / "votes.jsonl"
    append_vote(file, vote)
    (line,) = file.read_text().splitlines()
    kept = json.loads(line)
    assert list(kept)[:3] == ["id", "time", "client"]
    assert {name: kept[name] for name in given} == given
    assert kept.keys() - given.keys() == {"id", "time", "client"}
    assert kept["client"] == "anna"
    assert abs(datetime.fromisoformat(kept["time"]) - datetime.now(UTC)).total_seconds() < 60
    assert datetime.fromisoformat(kept["time"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert read_votes(file) == [vote]


def test_what_a_vote_does_not_have_does_not_stand_in_its_line(tmp_path: Path) -> None:
    (line,) = keep(tmp_path / "votes.jsonl", [cast()]).read_text().splitlines()
    kept = json.loads(line)
    assert "tools" not in kept
    assert kept["a"]["message"] == {"role": "assistant", "content": "It is 4."}
    assert kept["a"]["target"] is None


def test_votes_have_ids_of_their_own() -> None:
    vote = PostedVote.model_validate(posted())
    assert Vote.of(vote, client="x").id != Vote.of(vote, client="x").id


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"choice": "c"}, ("choice",)),
        ({"shown_first": "tie"}, ("shown_first",)),
        ({"messages": []}, ("messages",)),
        ({"messages": [{"role": "robot", "content": "x"}]}, ("messages",)),
        ({"messages": [{"content": "x"}]}, ("messages",)),
        ({"id": "mine"}, ("id",)),
        ({"client": "somebody else"}, ("client",)),
        ({"parameters": None}, ("parameters",)),
        ({"a": {"model": "x", "message": {"role": "user", "content": "x"}}}, ("a", "message")),
        ({"b": {"model": 3, "message": {"role": "assistant", "content": "x"}}}, ("b", "model")),
        ({"b": {"model": "", "message": {"role": "assistant", "content": "x"}}}, ("b", "model")),
        ({"b": {"model": "x"}}, ("b", "message")),
    ],
)
def test_what_is_no_vote_is_refused_by_field(
    change: dict[str, Any], place: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        PostedVote.model_validate_json(json.dumps(posted(**change)))
    (error,) = caught.value.errors()
    assert error["loc"][: len(place)] == place


def test_a_vote_that_could_not_be_written_is_refused() -> None:
    given = posted(messages=[{"role": "user", "content": "\ud800"}])
    with pytest.raises(ValidationError, match="cannot be written as JSON"):
        PostedVote.model_validate(given)
    with pytest.raises(ValidationError, match="Invalid JSON"):
        PostedVote.model_validate_json(json.dumps(given))


def test_who_was_chosen() -> None:
    for choice, chosen, other in (("a", "ours", "theirs"), ("b", "theirs", "ours")):
        vote = cast(choice=choice)
        assert vote.chosen is not None
        assert vote.other is not None
        assert (vote.chosen.model, vote.other.model) == (chosen, other)
    for choice in ("tie", "both_bad"):
        assert cast(choice=choice).chosen is cast(choice=choice).other is None


def test_the_same_prompt_is_known_whatever_the_order_of_its_keys() -> None:
    turned = [{"content": "One?", "role": "user"}]
    assert cast("One?").prompt_sha256 == cast(messages=turned).prompt_sha256
    assert cast("One?").prompt_sha256 != cast("Two?").prompt_sha256


# The file.


def test_the_file_and_its_folders_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "votes.jsonl"
    before = os.umask(0)
    try:
        append_vote(file, cast())
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_file_holds_no_votes(tmp_path: Path) -> None:
    assert read_votes(tmp_path / "votes.jsonl") == []


def test_a_line_that_a_kill_has_cut_off_is_neither_read_nor_in_the_way(tmp_path: Path) -> None:
    votes = [cast(str(n), number=n) for n in range(3)]
    file = keep(tmp_path / "votes.jsonl", votes[:2])
    whole = file.read_bytes()
    # Longer than is read at a time, which the cut line need not be.
    for cut in (b'{"id": "vote-9", "ti', b'{"id": "' + b"x" * (2 * READ_BYTES), b"{"):
        file.write_bytes(whole + cut)
        assert read_votes(file) == votes[:2]
        append_vote(file, votes[2])
        assert read_votes(file) == votes
        assert file.read_bytes().startswith(whole)
        assert file.read_bytes().count(b"\n") == 3
    file.write_bytes(b"{")
    append_vote(file, votes[0])
    assert read_votes(file) == votes[:1]


def test_a_whole_vote_without_the_end_of_its_line_stays(tmp_path: Path) -> None:
    votes = [cast(str(n), number=n) for n in range(3)]
    file = keep(tmp_path / "votes.jsonl", votes[:2])
    file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    assert read_votes(file) == votes[:2]
    append_vote(file, votes[2])
    assert read_votes(file) == votes


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": "x", "ti', "EOF"),
        (b"[]", "should be an object"),
        (b'{"choice": "a"}', "messages: Field required"),
        (b"\xff", "Invalid JSON"),
    ],
)
def test_any_other_broken_line_is_told_with_its_place(
    tmp_path: Path, line: bytes, why: str
) -> None:
    file = keep(tmp_path / "votes.jsonl", [cast()])
    file.write_bytes(file.read_bytes() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=why) as caught:
        read_votes(file)
    assert caught.value.where == f"{file}:3"


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the votes"):
        read_votes(tmp_path)
    with pytest.raises(UserError, match="cannot be kept") as caught:
        append_vote(tmp_path, cast())
    assert caught.value.where == str(tmp_path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = keep(tmp_path / "votes.jsonl", [cast()])
    before = file.read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from configs.errors import UserError\n"
        "from data.votes import append_vote\n"
        "from tests.data.cast_votes import cast\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "size = int(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "try:\n"
        "    append_vote(Path(sys.argv[1]), cast('x' * 1000))\n"
        "except UserError as error:\n"
        "    print(error.what)\n"
    )
    # Room for a part of the line.
    arguments = [str(file), str(len(before) + 100)]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert run.stdout == "the vote cannot be kept: File too large\n"
    assert file.read_bytes() == before
    assert len(read_votes(file)) == 1


def write_many(file: Path, writer: int) -> None:
    for number in range(NUM_VOTES):
        # Long lines, so that writing one takes its time.
        append_vote(file, cast("?" * 20_000, number=number, client=f"client-{writer}"))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(file, n)) for n in range(NUM_WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    votes = read_votes(file)
    for number in range(NUM_WRITERS):
        own = [vote.id for vote in votes if vote.client == f"client-{number}"]
        assert own == [f"vote-{n}" for n in range(NUM_VOTES)]


def test_a_line_that_another_process_is_writing_is_waited_for(tmp_path: Path) -> None:
    votes = [cast(str(n), number=n) for n in range(2)]
    line = keep(tmp_path / "other.jsonl", votes[:1]).read_bytes()
    file = tmp_path / "votes.jsonl"
    with file.open("ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(line[:50])
        writer = Thread(target=append_vote, args=(file, votes[1]))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        other.write(line[50:])
    writer.join(30)
    assert read_votes(file) == votes


# Counting.


def test_votes_are_counted_by_pair_whichever_model_was_a(tmp_path: Path) -> None:
    votes = [
        cast(choice="a"),
        cast(choice="b", models=("theirs", "ours")),
        cast(choice="b"),
        cast(choice="tie", models=("theirs", "ours")),
        cast(choice="both_bad"),
        cast(choice="a", models=("theirs", "base")),
    ]
    assert count_votes(votes) == [
        VoteCount(a="ours", b="theirs", num_votes=5, num_a=2, num_b=1, num_tie=1, num_both_bad=1),
        VoteCount(a="base", b="theirs", num_votes=1, num_a=0, num_b=1, num_tie=0, num_both_bad=0),
    ]
    assert count_votes([]) == []


def test_a_model_against_itself_is_counted_as_voted() -> None:
    votes = [cast(choice=choice, models=("x", "x")) for choice in ("a", "a", "b")]
    (count,) = count_votes(votes)
    assert (count.a, count.b, count.num_a, count.num_b) == ("x", "x", 2, 1)
