import pytest

from evals.answer_figures import latency, mean, total
from evals.task import Answer
from tests.evals.report.factories import answer


def taking(*seconds: float | None) -> list[Answer]:
    return [answer(1, "x", 1.0, asked="?", reference="x", seconds=one) for one in seconds]


def test_a_sum_with_something_unknown_in_it_is_unknown() -> None:
    assert (total([3, 4]), mean([3, 4])) == (7, 3.5)
    assert (total([3, None]), mean([3, None])) == (None, None)
    assert (total([]), mean([])) == (0, None)
    assert (total([0]), mean([0, 0])) == (0, 0.0)


def test_latency_is_that_of_the_answers_that_were_timed() -> None:
    told = latency(taking(0.1, None, 0.2, 0.9))
    assert told.median_s == 0.2
    assert told.p95_s == pytest.approx(0.83)
    assert latency(taking(None)) == latency([]) == (None, None)
