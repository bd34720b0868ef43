import pytest

from data.word_diff import MAX_COMPARED_WORDS, Piece, compare_words


def test_differing_words_are_marked_and_nothing_is_lost() -> None:
    before, after = compare_words("The finding is harmless now.", "The finding was harmless.")
    assert [piece.text.strip() for piece in before if piece.marked] == ["is", "now"]
    assert [piece.text.strip() for piece in after if piece.marked] == ["was"]
    assert "".join(piece.text for piece in before) == "The finding is harmless now."
    assert "".join(piece.text for piece in after) == "The finding was harmless."


def test_texts_with_nothing_in_common_are_not_marked() -> None:
    assert compare_words("one two three", "four five six") == (
        [Piece("one two three", False)],
        [Piece("four five six", False)],
    )


def test_white_space_alone_is_no_difference() -> None:
    before, after = compare_words("a  b", "a b\n")
    assert not any(piece.marked for piece in (*before, *after))


@pytest.mark.parametrize("num_words", [MAX_COMPARED_WORDS, MAX_COMPARED_WORDS + 1])
def test_texts_with_too_many_words_are_not_compared(num_words: int) -> None:
    before, _ = compare_words("same " * num_words, "same " * (MAX_COMPARED_WORDS - 1))
    assert any(piece.marked for piece in before) == (num_words == MAX_COMPARED_WORDS)
