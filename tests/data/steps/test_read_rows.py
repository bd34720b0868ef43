from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from configs.data_schema import PersonalDataConfig
from data.conversation import Conversation, Message, ReadRows, Reject, question_and_answer
from data.splits import TEST, TRAIN
from data.steps.read_rows import ReadResult, ReadTask, asked_hashes, group_hash, read_chunk

ADDRESS = "ann.lee@example.org"


@dataclass(frozen=True)
class Rows:
    """A source of rows made by hand."""

    conversations: tuple[Conversation, ...]
    licence: str = "CC0-1.0"
    attribution: str = ""
    told: str = ""

    def chunks(self) -> Iterator[int]:
        yield 0

    def read(self, chunk: int) -> ReadRows:
        reject = Reject(where="rows:9", reason="broken")
        return ReadRows(
            conversations=list(self.conversations),
            num_read=len(self.conversations) + 1,
            rejects=[reject],
        )


def read(*rows: Conversation, action: str = "report", is_task: bool = False) -> ReadResult:
    config = PersonalDataConfig.model_validate({"action": action})
    task = ReadTask(source=Rows(rows), number=3, personal_data=config, is_evaluation_task=is_task)
    return read_chunk(task, 0)


def messages_of(result: ReadResult) -> list[list[Message]]:
    assert result.batch is not None
    return [orjson.loads(text) for text in result.batch.column("messages").to_pylist()]


def test_rows_come_with_their_places_and_hashes() -> None:
    row = question_and_answer("q", "a", id="x", group="g", side="train")
    result = read(row)
    assert result.batch is not None
    (found,) = result.batch.to_pylist()
    assert (found["id"], found["where"], found["source"], found["side"]) == ("x", "x", 3, TRAIN)
    assert found["group_hash"] == group_hash("g", 3)
    assert found["asked"] == asked_hashes(row.messages) == [found["question"]]
    assert (result.num_read, result.rejects[0].where) == (2, "rows:9")


def test_rows_of_an_evaluation_task_are_test_rows() -> None:
    result = read(question_and_answer("q", "a", id="x", side="train"), is_task=True)
    assert result.batch is not None
    assert result.batch.column("side").to_pylist() == [TEST]


def test_equal_content_has_one_key_whatever_its_id() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    rejected: Message = {"role": "assistant", "content": "no"}
    same = [question_and_answer("q", "a", id=id, group=id) for id in "xy"]
    other = [
        question_and_answer("q", "b", id="x"),
        Conversation(id="x", messages=same[0].messages, tools=(tool,)),
        Conversation(id="x", messages=same[0].messages, rejected=rejected),
    ]
    result = read(*same, *other)
    assert result.batch is not None
    assert len(set(result.batch.column("key").to_pylist())) == 4


def test_what_is_asked_before_each_answer() -> None:
    turns: list[Message] = [
        {"role": "user", "content": "Which  IS"},
        {"role": "assistant", "content": "what?"},
        {"role": "user", "content": "it? "},
        {"role": "assistant", "content": "that"},
    ]
    first, second = asked_hashes(turns)
    assert first == asked_hashes([{"role": "user", "content": "which is"}, turns[1]])[0]
    assert second == asked_hashes([{"role": "user", "content": "Which is it?"}, turns[1]])[0]
    assert second != asked_hashes([{"role": "user", "content": "Whichis it?"}, turns[1]])[0]


def test_groups_of_different_sources_are_different_ones() -> None:
    assert group_hash("", 0) == group_hash("", 1) == 0
    assert group_hash("g", 0) != group_hash("g", 1)
    assert group_hash("g", 0) == group_hash("g", 0) != 0


def test_last_turns_that_nobody_answers_are_cut_and_counted() -> None:
    row = question_and_answer("q", "a", id="x")
    result = read(Conversation(id="x", messages=(*row.messages, row.messages[0])))
    assert messages_of(result) == [list(row.messages)]
    assert result.num_unanswered == 1


# Personal data in every corner of a row.

CORNERS = Conversation(
    id="x",
    where="rows:7",
    messages=(
        {"role": "system", "content": f"1 {ADDRESS}"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": f"2 {ADDRESS}"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "text", "text": "nothing"},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": "f", "arguments": f'{{"to": "{ADDRESS}"}}'},
                }
            ],
        },
        {"role": "tool", "content": f"4 {ADDRESS}", "tool_call_id": "c"},
        {"role": "assistant", "content": "sent"},
    ),
    rejected={"role": "assistant", "content": f"5 {ADDRESS}"},
)


def test_personal_data_is_masked_wherever_it_stands() -> None:
    plain = question_and_answer("q", "a", id="y")
    result = read(plain, CORNERS, action="mask")
    assert result.batch is not None
    everything = str(result.batch.to_pylist())
    assert ADDRESS not in everything
    for expected in (
        "1 [EMAIL]",
        "2 [EMAIL]",
        "4 [EMAIL]",
        "5 [EMAIL]",
        '\\\\"to\\\\": \\\\"[EMAIL]',
    ):
        assert expected in everything
    assert (result.findings["email"], result.num_rows_with_findings) == (5, 1)
    masked = next(messages for messages in messages_of(result) if len(messages) == 5)
    assert masked[1]["content"] == [
        {"type": "text", "text": "2 [EMAIL]"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "nothing"},
    ]
    assert [turn["role"] for turn in masked] == [turn["role"] for turn in CORNERS.messages]


def test_a_row_with_personal_data_is_dropped_with_its_place_and_kind() -> None:
    result = read(question_and_answer("q", "a", id="y"), CORNERS, action="drop")
    assert [len(messages) for messages in messages_of(result)] == [2]
    assert result.rejects[1:] == [Reject(where="rows:7", reason="holds personal data (email)")]


def test_examples_tell_where_and_give_nothing_away() -> None:
    result = read(CORNERS)
    assert [example.where for example in result.examples] == ["rows:7"] * 5
    assert "lee" not in str(result.examples)


def test_a_chunk_of_which_nothing_is_left_gives_no_batch() -> None:
    result = read(CORNERS, action="drop")
    assert result.batch is None
    assert result.num_read == 2
