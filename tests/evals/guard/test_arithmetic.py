"""The stored results, worked out a second time from the numbers that stand in the questions."""

import re
from collections.abc import Callable

import pytest

from data.conversation import text_of
from evals.guard.arithmetic import TEMPLATES, load_arithmetic

Numbers = list[float]
# Each from the numbers of the question in their order.
RESULTS: dict[str, Callable[[Numbers], float]] = {
    "sum": sum,
    "sum of three": sum,
    "difference": lambda n: n[0] - n[1],
    "below zero": lambda n: n[0] - n[1],
    "product": lambda n: n[0] * n[1],
    "quotient": lambda n: n[0] / n[1],
    "remainder": lambda n: n[0] - n[1] * (n[0] // n[1]),
    "precedence": lambda n: n[0] + (n[1] * n[2]),
    "brackets": lambda n: n[0] * n[2] + n[1] * n[2],
    "square": lambda n: n[0] ** 2,
    "decimals": sum,
    "percentage": lambda n: n[0] / 100 * n[1],
    "discount": lambda n: n[0] * (1 - n[1] / 100),
    "mean": lambda n: sum(n) / 3,
    "largest": lambda n: sorted(n)[-1],
    "equation": lambda n: (n[2] - n[1]) / n[0],
    "purchase": lambda n: n[2] - n[0] * n[1],
    "sharing": lambda n: n[0] / n[1],
    "duration": lambda n: (n[2] - n[0]) * 60 + n[3] - n[1],
    "travel": lambda n: n[0] * n[1],
    "rectangle": lambda n: n[0] * n[1],
}
FACTORS = {"kilometres": 1000, "metres": 100, "hours": 60}


@pytest.mark.parametrize("name", TEMPLATES)
def test_stored_results_are_right(name: str) -> None:
    questions = [question for question in load_arithmetic() if question.cluster == name]
    assert len(questions) == 5
    for question in questions:
        asked = text_of(question.messages[0])
        numbers = [float(found) for found in re.findall(r"\d+(?:\.\d+)?", asked)]
        if name == "units":
            big = re.search(r"\d+ (\w+)\?", asked)
            assert big is not None
            result = numbers[0] * FACTORS[big[1]]
        else:
            result = RESULTS[name](numbers)
        assert question.check["checks"][0]["value"] == pytest.approx(result), asked
        assert float(text_of(question.reference)) == pytest.approx(result), asked
