import dataclasses

import pytest

from configs.errors import UserError
from configs.evaluation_schema import OwnCost, Price
from evals.cost import (
    AskedSide,
    check_currencies,
    cost_of_sides,
    format_money,
    preview,
    rough_num_tokens,
)
from evals.task import Answer
from tests.evals.recorded_rows import EXAMPLES, answer, build_task

PRICE = Price(input_per_million=2.0, output_per_million=6.0)
QUESTION = build_task(1).questions[0]


def replies(*tokens: tuple[int | None, int | None], seconds: float | None = 2.0) -> list[Answer]:
    return [
        answer(QUESTION, epoch=n, prompt_tokens=prompt, completion_tokens=reply, seconds=seconds)
        for n, (prompt, reply) in enumerate(tokens, start=1)
    ]


def words(text: str) -> int:
    return len(text.split())


def test_a_preview_counts_requests_and_tokens() -> None:
    task = build_task(1, num_epochs=3, temperature=0.5, max_tokens=10)
    told = preview([(task, False), (task, True)], price=PRICE, num_tokens=words)
    assert told.num_requests == 6
    # "Term 0?" is two words and a turn of four more; each example adds two turns, three words.
    assert told.prompt_tokens == 3 * (2 + 4) + 3 * (2 + 4 + len(EXAMPLES) * (3 + 8))
    assert told.completion_tokens == 6 * 1
    assert told.most_completion_tokens == 6 * 10
    assert told.cost == pytest.approx((told.prompt_tokens * 2 + 6 * 6) / 1e6)
    assert told.most_cost == pytest.approx((told.prompt_tokens * 2 + 60 * 6) / 1e6)
    assert told.num_measured == 0


def test_tools_and_images_are_counted() -> None:
    tasks = [build_task(3, questions=(question,)) for question in build_task(3).questions]
    plain, with_tool, with_image = (
        preview([(task, False)], price=None).prompt_tokens for task in tasks
    )
    assert with_tool > plain + 50
    assert with_image > plain + 1000


def test_no_answer_is_expected_to_be_longer_than_allowed() -> None:
    task = build_task(1, max_tokens=1)
    long = dataclasses.replace(QUESTION, reference={"role": "assistant", "content": "a " * 50})
    task = dataclasses.replace(task, questions=(long,))
    assert preview([(task, False)], price=None, num_tokens=words).completion_tokens == 1


def test_a_pilot_takes_the_place_of_the_estimate() -> None:
    task = build_task(3, num_epochs=2, temperature=0.5)
    pilot = {"terms": replies((100, 7), (101, 10))}
    told = preview([(task, False), (task, True)], price=PRICE, num_tokens=words, pilot=pilot)
    estimated = preview([(task, True)], price=PRICE, num_tokens=words)
    assert told.prompt_tokens - estimated.prompt_tokens == 603
    assert told.completion_tokens - estimated.completion_tokens == 51
    assert (told.num_measured, told.num_requests) == (6, 12)
    assert "extrapolated from the pilot's for 6 of the requests" in told.describe()


def test_a_pilot_whose_host_tells_no_tokens_is_no_measurement() -> None:
    task = build_task(2)
    pilot = {"terms": replies((100, 7), (None, None))}
    told = preview([(task, False)], price=PRICE, pilot=pilot)
    assert told.num_measured == 0
    assert told == preview([(task, False)], price=PRICE)


def test_a_preview_is_told_in_words() -> None:
    task = build_task(1, max_tokens=1000)
    told = preview([(task, False)], price=Price(input_per_million=1e5, output_per_million=1e5))
    assert told.describe() == (
        "1 requests, about 7 tokens of prompts and 2 of answers (estimated from the texts' length; "
        "at most 1,000 of answers): about 0.90 USD, at most 100.70 USD"
    )
    assert preview([(task, False)], price=None).describe().endswith("; no price is configured")


def test_costs_of_both_sides_and_the_break_even() -> None:
    hosted = replies((1000, 100), (3000, 300))
    with_examples = replies((9000, 100))
    ours = replies((1000, 50), (1000, 50), seconds=0.5)
    result = cost_of_sides(
        [
            AskedSide(name="big", answers=[*hosted, *with_examples], judged=hosted, price=PRICE),
            AskedSide(name="mine", answers=ours, judged=ours),
        ],
        own_cost=OwnCost(per_month=52.0),
        own="mine",
    )
    big, mine = result["sides"]
    assert (big["num_requests"], big["prompt_tokens"], big["completion_tokens"]) == (3, 13000, 500)
    assert big["cost"] == pytest.approx((13000 * 2 + 500 * 6) / 1e6)
    # A mean request: 2,000 and 200 tokens.
    assert big["per_request"] == pytest.approx(0.0052)
    assert (big["median_seconds"], big["p95_seconds"]) == (2.0, 2.0)
    assert (mine["cost"], mine["per_request"], mine["currency"]) == (None, None, None)
    assert result["break_even_requests"] == 10_000
    assert result["own_capacity_requests"] == 5_259_600
    assert (result["own_per_month"], result["currency"]) == (52.0, "USD")


def test_what_is_not_known_stays_open() -> None:
    unknown = replies((10, 10), (None, None), seconds=None)
    sides = [
        AskedSide(name="big", answers=unknown, judged=unknown, price=PRICE),
        AskedSide(name="mine", answers=unknown, judged=unknown),
    ]
    result = cost_of_sides(sides, own_cost=None, own="mine")
    for side in result["sides"]:
        assert side["num_requests"] == 2
        known = {"name", "num_requests", "currency"}
        assert {side[key] for key in side.keys() - known} == {None}  # type: ignore[literal-required]
    assert result["break_even_requests"] is None
    assert result["own_capacity_requests"] is None
    assert result["own_per_month"] is None


def test_a_machine_without_a_hosted_price_has_no_break_even() -> None:
    ours = replies((1, 1))
    side = AskedSide(name="mine", answers=ours, judged=ours)
    result = cost_of_sides([side], own_cost=OwnCost(per_month=5, currency="EUR"), own="mine")
    assert (result["break_even_requests"], result["currency"]) == (None, "EUR")


def test_a_host_that_asks_for_nothing_has_no_break_even() -> None:
    ours = replies((1, 1))
    free = Price(input_per_million=0, output_per_million=0)
    sides = [
        AskedSide(name="free", answers=ours, judged=ours, price=free),
        AskedSide(name="mine", answers=ours, judged=ours),
    ]
    result = cost_of_sides(sides, own_cost=OwnCost(per_month=5), own="mine")
    assert result["sides"][0]["cost"] == 0
    assert result["break_even_requests"] is None


def test_several_currencies_are_refused() -> None:
    with pytest.raises(UserError, match="different currencies: USD and EUR") as caught:
        check_currencies([None, PRICE], OwnCost(per_month=5, currency="EUR"))
    assert "exchange rates" in (caught.value.remedy or "")
    assert check_currencies([None], None) is None


@pytest.mark.parametrize(
    ("amount", "told"),
    [(0, "0.00 USD"), (1234.5, "1,234.50 USD"), (0.5, "0.50 USD"), (0.000123, "0.00012 USD")],
)
def test_money_keeps_the_digits_that_count(amount: float, told: str) -> None:
    assert format_money(amount, "USD") == told


def test_a_rough_count_is_rather_too_high() -> None:
    assert rough_num_tokens("") == 0
    assert rough_num_tokens("abcd") == 2
