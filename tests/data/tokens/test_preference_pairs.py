import numpy as np
import pytest

from data.tokens.preference_pairs import last_answer_start, pair_problem
from data.tokens.rendered import Rendered

PROMPT = [1, 2, 3]


@pytest.mark.parametrize(
    ("mask", "start"),
    [
        ([0, 0, 1, 1], 2),
        ([0, 1, 1, 0, 0, 1, 1, 0], 5),
        ([1, 0, 1, 0, 1], 4),
        ([1], 0),
        ([0, 1, 1, 1], 1),
    ],
)
def test_the_last_answer_begins_behind_the_last_gap(mask: list[int], start: int) -> None:
    assert last_answer_start(mask) == last_answer_start(np.array(mask, np.int8)) == start


def rendered(*answer: int, prompt: list[int] = PROMPT, dropped: int = 0) -> Rendered:
    """A row of an earlier answer, a prompt and an answer."""
    return Rendered(
        [9, 8, *prompt, *answer], [0, 1, *[0] * len(prompt), *[1] * len(answer)], dropped
    )


@pytest.mark.parametrize(
    ("preferred", "rejected", "problem"),
    [
        (rendered(4, 5), rendered(4, 6), ""),
        (rendered(4, 5), rendered(4), ""),
        (rendered(*range(4, 8)), rendered(4), ""),
        (rendered(4), rendered(*range(4, 9)), "a preference pair of more than 9 tokens"),
        (rendered(4, dropped=2), rendered(5), "a preference pair of more than 9 tokens"),
        (
            rendered(4, 5),
            rendered(4, 5),
            "the preferred and the rejected answer are the same tokens",
        ),
        (
            rendered(4, 5),
            rendered(4, 6, prompt=[1, 2, 7]),
            "the preferred and the rejected answer do not follow the same tokens",
        ),
        (
            rendered(4, 5),
            rendered(4, 6, prompt=[1, 2]),
            "the preferred and the rejected answer do not follow the same tokens",
        ),
        (rendered(4), Rendered([], [], 0, "is odd"), "its rejected answer: is odd"),
    ],
)
def test_what_makes_two_rows_a_pair(preferred: Rendered, rejected: Rendered, problem: str) -> None:
    assert pair_problem(preferred, rejected, max_length=9) == problem
