import pytest

from serve.stop_strings import StopStrings


def pass_through(pieces: list[str], stop: list[str]) -> tuple[str, bool]:
    """What comes out of `pieces`, as the engine would use it; whether a stop string was met."""
    strings, out = StopStrings(stop), ""
    for piece in pieces:
        out += strings.feed(piece)
        if strings.matched:
            return out, True
    return out + strings.rest(), False


@pytest.mark.parametrize(
    ("pieces", "stop", "expected", "matched"),
    [
        (["one two"], [], "one two", False),
        (["one two three"], [" two"], "one", True),
        (["one t", "wo three"], ["two"], "one ", True),
        (["o", "n", "e"], ["one"], "", True),
        (["C", "#"], ["###"], "C#", False),
        (["a##", "b##", "#c"], ["###"], "a##b", True),
        (["aab"], ["ab"], "a", True),
        (["a", "a", "b"], ["ab"], "a", True),
        (["x END y STOP"], ["STOP", "END"], "x ", True),
        (["one\n"], ["\n\n"], "one\n", False),
    ],
)
def test_text_ends_before_the_first_stop_string_and_nothing_else_is_lost(
    pieces: list[str], stop: list[str], expected: str, matched: bool
) -> None:
    assert pass_through(pieces, stop) == (expected, matched)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    strings = StopStrings(["</s>"])
    assert strings.feed("answer <") == "answer "
    assert strings.feed("b>") == "<b>"
    assert strings.feed("</s") == ""
    assert strings.rest() == "</s"


def test_the_cut_does_not_depend_on_where_pieces_begin() -> None:
    text, stop = "abcabdabcabeabcabf", ["cabe", "bf"]
    for size in range(1, len(text)):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert pass_through(pieces, stop) == ("abcabdab", True)
