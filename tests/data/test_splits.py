import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.conversation import Conversation, Message, question_and_answer
from data.splits import Side, assign_side, content_hash


def row(question: str, answer: str = "a", **options: str) -> Conversation:
    return question_and_answer(question, answer, id="id", **options)  # type: ignore[arg-type]


def side_of(conversation: Conversation, test: float = 0.1, validation: float = 0.05) -> Side:
    return assign_side(conversation, test_fraction=test, validation_fraction=validation)


def test_the_sides_of_a_few_rows_are_fixed_for_good() -> None:
    """Pinned: if they change, rows that were tested yesterday are trained on tomorrow."""
    sides = [side_of(row(f"Question {n}?"), test=0.3, validation=0.3) for n in range(8)]
    assert [side[:2] for side in sides] == ["tr", "te", "tr", "te", "va", "va", "te", "te"]


def test_the_side_is_the_first_64_bits_of_a_hash_of_the_group() -> None:
    for number in range(50):
        digest = hashlib.sha256(b"test\0group %d" % number).hexdigest()
        share = int(digest[:16], 16) / 16**16
        conversation = row("any", group=f"group {number}")
        for fraction in (0.05, 0.5, 0.95):
            assert (side_of(conversation, test=fraction) == "test") == (share < fraction)


def test_fractions_are_met_over_many_groups() -> None:
    num_groups, test, validation = 5000, 0.13, 0.05
    counts = Counter(
        side_of(row("q", group=f"group {n}"), test=test, validation=validation)
        for n in range(num_groups)
    )
    assert counts.total() == num_groups
    # Four standard deviations of a binomial share.
    for side, share in (("test", test), ("validation", (1 - test) * validation)):
        tolerance = 4 * (share * (1 - share) / num_groups) ** 0.5
        assert abs(counts[side] / num_groups - share) < tolerance  # type: ignore[index]


def test_a_group_stays_together() -> None:
    for number in range(500):
        group = f"patient {number}"
        sides = {side_of(row(f"q {n}", f"a {n}", group=group), 0.5, 0.5) for n in range(4)}
        assert len(sides) == 1


def test_rows_without_a_group_are_grouped_by_their_question() -> None:
    for number in range(200):
        same = [
            row(f"What is rule {number}?", "a"),
            row(f"What is  rule {number}?", "b"),
            row(f"WHAT IS\nRULE {number}?", "c"),
        ]
        assert len({side_of(one, 0.5, 0.5) for one in same}) == 1


def test_a_group_overrides_the_question() -> None:
    sides = {side_of(row("the same question", group=f"g{n}"), 0.5, 0.5) for n in range(50)}
    assert sides == {"train", "validation", "test"}


def test_a_larger_test_set_contains_the_smaller_one() -> None:
    rows = [row(f"q {n}") for n in range(500)]
    small = {one.messages[0]["content"] for one in rows if side_of(one, test=0.1) == "test"}
    large = {one.messages[0]["content"] for one in rows if side_of(one, test=0.2) == "test"}
    assert small < large


def test_the_sources_decision_stands() -> None:
    for number in range(200):
        tested = row(f"q {number}", side="test")
        assert side_of(tested, test=0.001, validation=0.999) == "test"
        trained = row(f"q {number}", side="train")
        assert side_of(trained, test=0.999, validation=0.001) in ("train", "validation")
    sides = {side_of(row(f"q {n}", side="train"), test=0.999, validation=0.5) for n in range(99)}
    assert sides == {"train", "validation"}


MESSAGES = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant"]),
        content=st.text(st.characters(codec=None), max_size=6),
    ),
    max_size=4,
)


@given(one=MESSAGES, other=MESSAGES)
def test_hashes_are_equal_for_equal_content_only(one: list[Message], other: list[Message]) -> None:
    assert (content_hash(one) == content_hash(other)) == (one == other)
    assert content_hash(one) == content_hash([turn.copy() for turn in one])


def test_hashes_know_where_a_text_ends() -> None:
    def pair(first: str, second: str) -> list[Message]:
        return [{"role": "user", "content": first}, {"role": "assistant", "content": second}]

    joined: list[Message] = [{"role": "user", "content": "aassistantb"}]
    assert content_hash(pair("a", "b")) != content_hash(joined)
    assert content_hash(pair("ab", "c")) != content_hash(pair("a", "bc"))
    assert content_hash(pair("a", "b")) != content_hash(pair("b", "a"))


@pytest.mark.parametrize("text", ["", "a", "é", "\ud800"])
def test_hashes_are_hex_digests(text: str) -> None:
    digest = content_hash([{"role": "user", "content": text}])
    assert len(digest) == 64
    int(digest, 16)
