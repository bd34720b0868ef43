import pytest

from evals.metrics.fences import unfenced


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("```\na\n```", "a"),
        ("  ```python\na\n b\n```\n", "a\n b"),
        ("~~~\na ``` b\n~~~", "a ``` b"),
        ("````md\n```\na\n```\n````", "```\na\n```"),
        ("```\n```", ""),
        (" a ", "a"),
    ],
)
def test_one_block_that_is_the_whole_answer_is_opened(text: str, inner: str) -> None:
    assert unfenced(text) == inner


@pytest.mark.parametrize(
    "text",
    ["x\n```\na\n```", "```\na\n```\nx", "```\na\n```\n```\nb\n```", "```\na", "```a```", "```"],
)
def test_anything_else_stays_as_it_is(text: str) -> None:
    assert unfenced(text) == text
